"""What is in the pictures, for a judge that sees none: objects that COCO's annotators marked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.errors import EvaluationError
from eval.files.coco import SOURCE, SPLITS, read_instances
from eval.tasks.chair import truth as chair_truth
from eval.tasks.chair.vocabulary import load_vocabulary


@dataclass(frozen=True, slots=True)
class References:
    """Objects by image id, and all kinds of object that were looked for."""

    objects: dict[int, list[str]]
    kinds: list[str]

    def hash(self) -> str:
        """Return the SHA-256 of all of it."""
        content = [self.kinds, sorted(self.objects.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def read_references(
    ids: Sequence[int], *, coco_path: Path | None, ground_truth: Path | None
) -> References:
    """Return the objects of some pictures.

    Args:
        ids: Their image ids.
        coco_path: Folder of COCO's instances files.
        ground_truth: A ground truth file, as `eval/chair.py` takes it, instead.
    Raises:
        EvaluationError: If neither or both are given, or a picture is in none.
    """
    if (coco_path is None) == (ground_truth is None):
        raise EvaluationError(
            "judge_mode text needs to know what is in the pictures: pass either --coco_path with "
            "the folder of COCO's annotations, or --ground-truth with a file"
        )
    if ground_truth is not None:
        found = {image_id: set(names) for image_id, names in
                 chair_truth.read(ground_truth).objects.items()}  # fmt: skip
    else:
        assert coco_path is not None
        found = _instances(coco_path, ids)
    unknown = [image_id for image_id in ids if image_id not in found]
    if unknown:
        raise EvaluationError(
            f"{ground_truth or coco_path} does not know {len(unknown)} of {len(ids)} pictures, "
            f"that of image id {unknown[0]} among them; pass the annotations of these pictures"
        )
    kinds = sorted(set(load_vocabulary().object_of.values()))
    return References({image_id: sorted(found[image_id]) for image_id in ids}, kinds)


def _instances(folder: Path, ids: Sequence[int]) -> dict[int, set[str]]:
    """Return the objects of the instances files, the larger one only if it is needed."""
    files = [folder / f"instances_{split}.json" for split in reversed(SPLITS)]
    there = [path for path in files if path.is_file()]
    if not there:
        raise EvaluationError(
            f"--coco_path {folder} holds neither {files[0].name} nor {files[1].name}; they are in "
            f"{SOURCE}"
        )
    found: dict[int, set[str]] = {}
    for path in there:
        if not found.keys() >= set(ids):
            found |= read_instances(path).objects
    return found
