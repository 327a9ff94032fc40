"""One POPE run: what is asked of the model, and what is reported of its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.output.layer_summary import layer_summaries
from eval.run.costs import cost_cells, read_costs
from eval.run.folder import METRICS, Row, RunFolder, decoding_in_words
from eval.run.prompt import Prompt
from eval.run.run_plan import ModelRun, answer_all, describe, plan_run
from eval.tasks.pope.answers import recorded
from eval.tasks.pope.pope_report import published, report_of
from eval.tasks.pope.questions import Question, questions_hash
from eval.tasks.pope.settings import PopeSettings
from eval.tasks.protocols import pope_protocol

Questions = Mapping[str, Sequence[Question]]


def run_model(settings: PopeSettings, questions: Questions) -> None:
    """Ask the model what is not answered yet, then score and print."""
    run = plan_questions(settings, questions)
    with run.folder(settings.output_dir, settings.types()) as folder:
        rows = answer_all(
            run,
            folder,
            key=lambda row: (row["method"], row["pope_type"], row["question_id"]),
        )
        if rows is not None:
            report(folder, rows, settings)


def plan_questions(settings: PopeSettings, questions: Questions) -> ModelRun:
    """Return what to ask, and the resolved settings that decide the answers."""
    described = describe(settings)
    protocol = pope_protocol(described.protocol, described.family)
    prompts = [
        Prompt((kind, q.question_id), q.image, q.text + protocol.suffix, recorded(q, kind))
        for kind, asked in questions.items()
        for q in asked
    ]
    inputs = {
        "benchmark": "pope",
        "questions": {
            kind: {"count": len(asked), "sha256": questions_hash(asked)}
            for kind, asked in questions.items()
        },
    }
    return plan_run(
        settings,
        described,
        prompts=prompts,
        max_new_tokens=protocol.max_new_tokens,
        inputs=inputs,
    )


def report(folder: RunFolder, rows: Sequence[Row], settings: PopeSettings) -> None:
    """Score the answers, write metrics.json and print the table."""
    resolved = folder.settings
    chosen = settings.parser or pope_protocol(resolved["protocol"], resolved["family"]).parser
    found = report_of(rows, chosen)
    layers = layer_summaries(rows)
    folder.write(
        METRICS,
        {
            "benchmark": "pope",
            "protocol": resolved["protocol"],
            "questions": resolved["questions"],
            **found.as_dict(),
            "eah": [layer.as_dict() for layer in layers],
        },
    )
    print(
        f"POPE, {settings.model} ({resolved['dtype']}, {resolved['device']}), protocol "
        f"{resolved['protocol']}, parser {chosen}, {decoding_in_words(resolved['decoding'])}; "
        "percent\n"
    )
    print(found.text(cost_cells(read_costs(folder.path))))
    for layer in layers:
        print(layer.sentence())
    for line in published(settings.model):
        print(line)
    print(f"run folder: {folder.path}")
