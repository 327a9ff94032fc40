"""Inputs of a judging run besides the answers: pictures, or a list of the objects in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from eval.errors import EvaluationError
from eval.files.coco import SOURCE, SPLITS, read_instances
from eval.files.image_ids import ImageId, sort_key
from eval.files.pictures import read_picture
from eval.tasks.chair import truth as chair_truth
from eval.tasks.chair.images import pictures_in
from eval.tasks.chair.vocabulary import load_vocabulary
from eval.tasks.judge.requests import Picture


@dataclass(frozen=True, slots=True)
class JudgeInputs:
    """Flags of a judging run, besides those for the judge.

    Attributes:
        data_path: Folder of the pictures; not needed if the judge sees none.
        coco_path, ground_truth: Sources of the objects in the pictures, for the text mode.
        single_order: Judge only in the order of the arms, as the paper does.
        output_dir: Folder for run folders.
        api_key_file: File with the key; None for OPENAI_API_KEY.
        ask_again: Send refused and rejected requests again.
        dry_run: Print what would be sent, and send nothing.
        report: HTML page to write.
        json: File for all results.
        overwrite: Allow `report` and `json` to replace files that this command did not write.
    """

    data_path: Path | None = None
    coco_path: Path | None = None
    ground_truth: Path | None = None
    single_order: bool = False
    output_dir: Path = Path("runs")
    api_key_file: Path | None = None
    ask_again: bool = False
    dry_run: bool = False
    report: Path | None = None
    json: Path | None = None
    overwrite: bool = False

    def pictures_folder(self) -> Path:
        """Return the folder of the pictures.

        Raises:
            EvaluationError: If it is not set, or not a folder.
        """
        if self.data_path is None:
            raise EvaluationError(
                "no pictures: pass --data-path, such as /data/COCO/val2014, or --judge-mode text "
                "to judge without pictures"
            )
        if not self.data_path.is_dir():
            raise EvaluationError(
                f"--data-path {self.data_path} is not a folder; pass the folder of the pictures"
            )
        return self.data_path


def read_pictures(
    inputs: JudgeInputs, ids: Sequence[ImageId], *, size: int
) -> dict[ImageId, Picture]:
    """Read every picture fully and return them by image id; no side is sent longer than `size`.

    Raises:
        EvaluationError: If a picture is missing or can't be read, before anything is paid.
    """
    folder = inputs.pictures_folder()
    names = pictures_in(folder)
    missing = [image_id for image_id in ids if image_id not in names]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(ids)} pictures are missing from {folder}, the first is that "
            f"of image id {missing[0]}; pass the right --data-path (scripts/data/download.sh "
            "fetches COCO's pictures)"
        )
    return {image_id: _read(folder / names[image_id], size) for image_id in ids}


def _read(path: Path, size: int) -> Picture:
    image = read_picture(path)
    scale = min(1.0, size / max(image.size))
    width, height = (ceil(side * scale) for side in image.size)
    return Picture(path, hashlib.sha256(path.read_bytes()).hexdigest(), width, height)


@dataclass(frozen=True, slots=True)
class References:
    """Objects by image id, and all categories that annotators looked for."""

    objects: dict[ImageId, list[str]]
    kinds: list[str]

    def hash(self) -> str:
        """Return the SHA-256 of categories and objects."""
        ids = sorted(self.objects, key=sort_key)
        content = [self.kinds, [[at, self.objects[at]] for at in ids]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def read_references(inputs: JudgeInputs, ids: Sequence[ImageId]) -> References:
    """Read the objects of pictures from COCO's folder or from the ground truth of `eval/chair.py`.

    Raises:
        EvaluationError: If neither or both are given, or a picture is missing.
    """
    coco_path, ground_truth = inputs.coco_path, inputs.ground_truth
    if ground_truth is not None and coco_path is None:
        found = {at: set(names) for at, names in chair_truth.read(ground_truth).objects.items()}
    elif coco_path is not None and ground_truth is None:
        found = _instances(coco_path, ids)
    else:
        raise EvaluationError(
            "judge_mode text needs the objects in the pictures: pass either --coco_path with the "
            "folder of COCO's annotations, or --ground-truth with a file"
        )
    unknown = [image_id for image_id in ids if image_id not in found]
    if unknown:
        raise EvaluationError(
            f"{ground_truth or coco_path} lacks {len(unknown)} of {len(ids)} pictures, the first "
            f"is that of image id {unknown[0]}; pass the annotations of these pictures"
        )
    kinds = sorted(set(load_vocabulary().object_of.values()))
    return References({image_id: sorted(found[image_id]) for image_id in ids}, kinds)


def _instances(folder: Path, ids: Sequence[ImageId]) -> dict[ImageId, set[str]]:
    """Read the objects of the instances files; the larger file is read only if needed."""
    files = [folder / f"instances_{split}.json" for split in reversed(SPLITS)]
    there = [path for path in files if path.is_file()]
    if not there:
        raise EvaluationError(
            f"--coco_path {folder} has neither {files[0].name} nor {files[1].name}; they are in "
            f"{SOURCE}"
        )
    found: dict[ImageId, set[str]] = {}
    for path in there:
        if not found.keys() >= set(ids):
            found |= read_instances(path).objects
    return found
