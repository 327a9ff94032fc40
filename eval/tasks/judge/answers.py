"""The two answers per picture that are compared, read from files; no model is needed for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eval.errors import EvaluationError
from eval.tasks.chair.captions import Caption, read_captions, some_ids


@dataclass(frozen=True, slots=True)
class Format:
    """Where a row has the image's id and the answer; of several answers the last is taken if so."""

    image_id_key: str = "image_id"
    caption_key: str = "caption"
    last: bool = False

    def read(self, path: Path) -> dict[str, list[Caption]]:
        """Return the answers of a file or run folder by method, as `eval/chair.py` reads them."""
        return read_captions(
            path, image_id_key=self.image_id_key, caption_key=self.caption_key, last=self.last
        )


@dataclass(frozen=True, slots=True)
class Arm:
    """One method's answers by image id.

    Attributes:
        name: The method's name, or the file's.
        texts: Answers by image id, in the order of the run.
        source: Where they were read.
    """

    name: str
    texts: dict[int, str]
    source: str

    def only(self, ids: Sequence[int]) -> Arm:
        """Return the arm with some of its pictures, in their order."""
        return Arm(self.name, {image_id: self.texts[image_id] for image_id in ids}, self.source)

    def hash(self) -> str:
        """Return the SHA-256 of image ids and answers, whatever file they came from."""
        return hashlib.sha256(json.dumps(list(self.texts.items())).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms of the same pictures in the same order."""

    first: Arm
    second: Arm

    @property
    def ids(self) -> list[int]:
        """Return the image ids in order."""
        return list(self.first.texts)

    def cut(self, count: int) -> Pair:
        """Return the pair with its first pictures only."""
        ids = self.ids[:count]
        return Pair(self.first.only(ids), self.second.only(ids))


PLAIN: Final = Format()


def from_files(first: Path, second: Path, layout: Format = PLAIN) -> Pair:
    """Return the answers of two files.

    Raises:
        EvaluationError: If one can't be read or holds several methods, or their pictures differ.
    """
    one, two = _only_method(first, layout), _only_method(second, layout)
    if one.name == two.name:
        one, two = (Arm(str(path), arm.texts, arm.source)
                    for path, arm in ((first, one), (second, two)))  # fmt: skip
    if first == second:
        raise EvaluationError(f"--answers-1 and --answers-2 are both {first}; compare two files")
    return paired(one, two)


def from_run(folder: Path, methods: Sequence[str], layout: Format = PLAIN) -> Pair:
    """Return the answers of two methods of one file or run folder.

    Raises:
        EvaluationError: If it lacks one of them, or their pictures differ.
    """
    arms = layout.read(folder)
    for method in methods:
        if method not in arms:
            raise EvaluationError(
                f"{folder} holds no answers of method {method!r}, only of {', '.join(arms)}; name "
                "two of these as --method"
            )
    one, two = (
        Arm(method, {caption.image_id: caption.text for caption in arms[method]}, str(folder))
        for method in methods
    )
    return paired(one, two)


def paired(first: Arm, second: Arm) -> Pair:
    """Return two arms as a pair, in the order of the first.

    Raises:
        EvaluationError: If they are not of the same pictures.
    """
    only_first = [image_id for image_id in first.texts if image_id not in second.texts]
    only_second = [image_id for image_id in second.texts if image_id not in first.texts]
    if only_first or only_second:
        parts = [
            f"{len(ids)} image ids only in {arm.source} ({some_ids(ids)})"
            for arm, ids in ((first, only_first), (second, only_second))
            if ids
        ]
        raise EvaluationError(
            f"the answers are of different pictures: {' and '.join(parts)}; both files must hold "
            "one answer for each of the same image ids"
        )
    return Pair(first, second.only(list(first.texts)))


def _only_method(path: Path, layout: Format) -> Arm:
    (name, captions), *more = layout.read(path).items()
    if more:
        raise EvaluationError(
            f"{path} holds answers of {len(more) + 1} methods; pass it as --answers-from, and two "
            "of them as --method"
        )
    return Arm(name, {caption.image_id: caption.text for caption in captions}, str(path))
