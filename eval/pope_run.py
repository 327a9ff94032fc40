"""One POPE run: what is asked of the model, and what is reported of its answers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import models
from eval.errors import EvaluationError
from eval.pope_answers import recorded
from eval.pope_questions import Question, questions_hash
from eval.pope_report import layer_summaries, published, result_table, results_of
from eval.pope_settings import PopeSettings
from eval.protocols import pope_protocol
from eval.provenance import images_hash, provenance
from eval.record import METRICS, Row, RunFolder, keyed
from eval.runner import Arm, Plan, Prompt, answer, check_images

Questions = Mapping[str, Sequence[Question]]


def run_model(settings: PopeSettings, questions: Questions) -> None:
    """Ask the model what is not answered yet, then score and print."""
    if settings.data_path is None:
        raise EvaluationError("no pictures: pass --data-path, such as /data/COCO/val2014")
    images = [question.image for asked in questions.values() for question in asked]
    check_images(settings.data_path, images)
    plan, resolved = plan_run(settings, questions, images)
    root = settings.output_dir / "pope" / settings.model
    decoded = "sample" if settings.sample else f"beam{settings.beam}"
    label = f"{resolved['protocol']}-{settings.types()}-{decoded}"
    if "baseline" not in settings.method:
        print("note: no baseline arm in this run, so it can't show a gain", file=sys.stderr)
    with RunFolder(root, label, resolved) as folder:
        rows = folder.predictions()
        done = keyed(rows, lambda row: (row["method"], row["pope_type"], row["question_id"]))
        if len(done) < len(plan.prompts) * len(plan.arms):
            vlm = models.load(
                settings.model,
                checkpoint=settings.checkpoint,
                protocol=resolved["protocol"],
                device=resolved["device"],
                dtype=resolved["dtype"],
            )
            folder.begin({"checkpoint": vlm.model.name_or_path, **provenance(resolved["device"])})
            answer(vlm, plan, done, folder.append)
            rows = folder.predictions()
        report(folder, rows, settings)


def plan_run(
    settings: PopeSettings, questions: Questions, images: Sequence[str]
) -> tuple[Plan, Row]:
    """Return what to ask, and the resolved settings that decide the answers."""
    assert settings.data_path is not None
    described = models.describe(
        settings.model,
        checkpoint=settings.checkpoint,
        protocol=settings.protocol,
        device=settings.device,
        dtype=settings.dtype,
    )
    protocol = pope_protocol(described.protocol)
    config = settings.eah_config(models.model_settings(settings.model))
    decoding = models.Decoding(
        max_new_tokens=settings.max_new_tokens or protocol.max_new_tokens,
        num_beams=settings.beam,
        do_sample=settings.sample,
    )
    prompts = [
        Prompt((kind, q.question_id), q.image, q.text + protocol.suffix, recorded(q, kind))
        for kind, asked in questions.items()
        for q in asked
    ]
    arms = [Arm(name, config if name == "eah" else None) for name in settings.method]
    plan = Plan(
        prompts,
        arms,
        settings.data_path,
        decoding,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        seed=settings.seed,
    )
    resolved = {
        "benchmark": "pope",
        **{key: value for key, value in asdict(described).items() if key != "checkpoint"},
        "method": settings.method,
        "eah": asdict(config) if "eah" in settings.method else None,
        "decoding": asdict(decoding),
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "questions": {
            kind: {"count": len(asked), "sha256": questions_hash(asked)}
            for kind, asked in questions.items()
        },
        "pictures": images_hash(settings.data_path, images),
    }
    return plan, resolved


def report(folder: RunFolder, rows: Sequence[Row], settings: PopeSettings) -> None:
    """Score the answers, write metrics.json and print the table."""
    resolved = folder.settings
    chosen = settings.parser or pope_protocol(resolved["protocol"]).parser
    results = results_of(rows)
    layers = layer_summaries(rows)
    folder.write(
        METRICS,
        {
            "benchmark": "pope",
            "protocol": resolved["protocol"],
            "parser": chosen,
            "questions": resolved["questions"],
            "results": [result.as_dict() for result in results],
            "eah": [layer.as_dict() for layer in layers],
        },
    )
    decoding = resolved["decoding"]
    how = "nucleus sampling" if decoding["do_sample"] else f"{decoding['num_beams']} beam(s)"
    print(
        f"POPE, {settings.model} ({resolved['dtype']}, {resolved['device']}), protocol "
        f"{resolved['protocol']}, parser {chosen}, {how}, at most "
        f"{decoding['max_new_tokens']} tokens; percent\n"
    )
    print(result_table(results, chosen) + "\n")
    for layer in layers:
        print(layer.sentence())
    for line in published(settings.model):
        print(line)
    print(f"run folder: {folder.path}")
