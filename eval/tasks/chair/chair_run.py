"""One captioning run: what is asked about which pictures, and what is said of the captions."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

from eval.files.coco import SPLITS
from eval.files.writing import write_atomically
from eval.output.layer_summary import layer_summaries
from eval.output.table import render
from eval.run.costs import HEADER, UNKNOWN, cost_cells, read_costs
from eval.run.folder import Row, RunFolder, decoding_in_words
from eval.run.prompt import Prompt
from eval.run.run_plan import ModelRun, answer_all, describe, plan_run
from eval.tasks.chair.images import ids_hash
from eval.tasks.chair.settings import ChairSettings
from eval.tasks.protocols import chair_protocol

IMAGE_IDS: Final = "image_ids.txt"


def run_model(settings: ChairSettings, pictures: Mapping[int, str]) -> None:
    """Ask the model for the captions that are not recorded yet, then write and summarise them.

    Args:
        settings: The command's settings.
        pictures: File names by image id, in the order of the run.
    """
    run = plan_captions(settings, pictures)
    with run.folder(settings.output_dir, f"{len(pictures)}images") as folder:
        ids = "".join(f"{image_id}\n" for image_id in pictures)
        write_atomically(folder.path / IMAGE_IDS, ids)
        rows = answer_all(
            run,
            folder,
            key=lambda row: (row["method"], row["image_id"]),
        )
        if rows is not None:
            report(folder, captions_by_method(rows, list(pictures)), settings)


def plan_captions(settings: ChairSettings, pictures: Mapping[int, str]) -> ModelRun:
    """Return what to ask, and the resolved settings that decide the captions."""
    described = describe(settings)
    protocol = chair_protocol(described.protocol, described.family)
    question = settings.question or protocol.question
    prompts = [
        Prompt((i,), name, question, {"image_id": i, "image": name, "question": question})
        for i, name in pictures.items()
    ]
    ids = list(pictures)
    inputs = {
        "benchmark": "chair",
        "question": question,
        "images": {"count": len(ids), "sha256": ids_hash(ids)},
    }
    return plan_run(
        settings,
        described,
        prompts=prompts,
        max_new_tokens=protocol.max_new_tokens,
        inputs=inputs,
        text_key="caption",
    )


def captions_by_method(rows: Sequence[Row], ids: Sequence[int]) -> dict[str, list[Row]]:
    """Return the recorded captions of each method, in the order of the image ids."""
    place = {image_id: at for at, image_id in enumerate(ids)}
    ordered = sorted(rows, key=lambda row: place[row["image_id"]])
    methods = dict.fromkeys(row["method"] for row in rows)
    return {method: [row for row in ordered if row["method"] == method] for method in methods}


def report(
    folder: RunFolder, captions: Mapping[str, Sequence[Row]], settings: ChairSettings
) -> None:
    """Write each method's captions to a file of its own, and print what there is to know."""
    resolved = folder.settings
    for method, rows in captions.items():
        write_atomically(captions_file(folder.path, method), dump_captions(rows))
    print(
        f"captions for CHAIR, {settings.model} ({resolved['dtype']}, {resolved['device']}), "
        f"protocol {resolved['protocol']}, {decoding_in_words(resolved['decoding'])}\n"
        f"question: {resolved['question']}\n"
    )
    print(caption_table(captions, cost_cells(read_costs(folder.path))) + "\n")
    for layer in layer_summaries([row for rows in captions.values() for row in rows]):
        print(layer.sentence())
    print(f"run folder: {folder.path}")
    print(f"next: {next_command(folder.path, list(captions), settings.pictures_folder())}")


def captions_file(folder: Path, method: str) -> Path:
    """Return the path of a method's captions in a run folder."""
    return folder / f"captions_{method}.jsonl"


def dump_captions(rows: Sequence[Row]) -> str:
    """Return captions in the line format of the released CHAIR tools."""
    keys = ("image_id", "caption")
    return "".join(json.dumps({key: row[key] for key in keys}) + "\n" for row in rows)


def caption_table(captions: Mapping[str, Sequence[Row]], costs: Mapping[str, Sequence[str]]) -> str:
    """Return a table with one line per method: captions, their length, and what they cost."""
    lines = []
    for method, rows in captions.items():
        texts = [row["caption"] for row in rows]
        words = fmean(len(text.split()) for text in texts)
        characters = fmean(map(len, texts))
        cut = sum(not row["finished"] for row in rows)
        lines.append(
            [method, str(len(texts)), f"{words:.1f}", f"{characters:.1f}", str(cut),
             str(texts.count("")), *costs.get(method, UNKNOWN)]
        )  # fmt: skip
    header = ["method", "captions", "mean words", "mean characters", "cut at the limit", "empty",
              *HEADER]  # fmt: skip
    return render(header, lines)


def next_command(folder: Path, methods: Sequence[str], pictures: Path) -> str:
    """Return the command that scores a run's captions, the last method's against the baseline's."""
    scored = next((name for name in reversed(methods) if name != "baseline"), "baseline")
    files = ["--cap_file", str(captions_file(folder, scored))]
    if scored != "baseline" and "baseline" in methods:
        files += ["--baseline", str(captions_file(folder, "baseline"))]
    keys = ["--image_id_key", "image_id", "--caption_key", "caption"]
    beside = pictures.parent / "annotations"
    splits = [split for split in SPLITS if (beside / f"instances_{split}.json").is_file()]
    truth = ["--coco_path", str(beside if splits else Path("/path/to/annotations"))]
    if len(splits) == 1:  # rendered scenes
        truth += ["--splits", *splits]
    return shlex.join(["python", "eval/chair.py", *files, *keys, *truth])
