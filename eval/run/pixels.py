"""Read and preprocess pictures ahead of the model, in worker processes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image
from torch.utils.data import DataLoader, Dataset

from eval.errors import EvaluationError
from eval.files.pictures import read_picture
from models.errors import ModelError
from models.file_hashes import file_hashes
from models.images import Preprocessing

LEAVE_OUT: Final = (
    "--skip-unreadable of pope_eval.py, chair_eval.py, evaluate.py and sinks.py leaves such "
    "pictures out"
)
ORDINARY_SIZE: Final = (640, 480)

Pixels = dict[str, Any]
"""Input of `VLM.encode` by file name: for most models pixels, (1, 3, side, side)."""


@dataclass(frozen=True)
class _Pictures(Dataset[Pixels | str]):
    """Groups of pictures; an error message replaces a group that can't be read."""

    groups: Sequence[Sequence[str]]
    folder: Path
    preprocessing: Preprocessing
    questions: Mapping[str, Sequence[str]]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, at: int) -> Pixels | str:
        try:
            return {name: self._prepare(name) for name in self.groups[at]}
        except EvaluationError as error:
            return str(error)  # an exception would arrive with a worker's traceback in its text

    def _prepare(self, name: str) -> Any:
        try:
            picture = read_picture(self.folder / name)
        except EvaluationError as error:
            raise EvaluationError(f"{error}; {LEAVE_OUT}") from error
        try:
            return self.preprocessing.prepare(picture, self.questions[name])
        except ModelError as error:
            what = f"{self.folder / name}: {error}"
            if self._can_prepare_ordinary(name):
                what += (
                    "; the model's processor does not accept this picture: leave it out of the "
                    "folder or list"
                )
            raise EvaluationError(what) from error

    def _can_prepare_ordinary(self, name: str) -> bool:
        """Return whether the same questions can be prepared with an ordinary picture."""
        try:
            self.preprocessing.prepare(Image.new("RGB", ORDINARY_SIZE), self.questions[name])
        except ModelError:
            return False
        return True


def read_ahead(
    groups: Sequence[Sequence[str]],
    folder: Path,
    preprocessing: Preprocessing,
    questions: Mapping[str, Sequence[str]],
    *,
    workers: int,
    pinned: bool,
) -> Iterator[Pixels]:
    """Yield the pixels of groups of pictures, prepared a few groups ahead.

    Args:
        groups: File names.
        folder: Folder of the pictures.
        preprocessing: Makes pixels of a picture.
        questions: Questions about each picture.
        workers: Processes that read; 0 reads in this one.
        pinned: Whether the pixels are in pinned memory, for fast copies to a GPU.
    Raises:
        EvaluationError: If a picture can't be read, or the model's processor does not accept it.
    """
    loader = DataLoader(
        _Pictures(groups, folder, preprocessing, questions),
        batch_size=None,
        num_workers=min(workers, len(groups)),
        pin_memory=pinned,
    )
    for pixels in _explain_dead_worker(loader):
        if isinstance(pixels, str):
            raise EvaluationError(pixels)
        yield pixels


def _explain_dead_worker(loader: DataLoader[Pixels | str]) -> Iterator[Pixels | str]:
    """Yield the output of a loader's processes.

    Raises:
        EvaluationError: If one of them was killed.
    """
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise EvaluationError(
            "a process that reads pictures was killed, perhaps for lack of memory; recorded "
            "answers are kept: run the same command again, with a smaller --num-workers"
        ) from error


def pictures_hash(folder: Path, names: Collection[str]) -> str:
    """Return a SHA-256 over the names and contents of pictures."""
    hashes = file_hashes([folder / name for name in names])
    digest = hashlib.sha256()
    for name in sorted(set(names)):
        digest.update(f"{name}:{hashes[folder / name]}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
