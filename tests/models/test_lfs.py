"""Git LFS pointers in the place of a checkpoint's files: one sentence, whatever the file is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from models.checkpoints.tensors import read_tensors
from models.errors import ModelError
from models.loading import load_pretrained, load_tokenizer
from models.sources import Source, find_source, is_lfs_pointer, weight_files

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5\n"


def source(folder: Path) -> Source:
    return find_source(str(folder), what="checkpoint", advice="")


def loaded(folder: Path) -> object:
    return load_pretrained(None, str(folder), dtype="auto", device="cpu")


READERS: dict[str, Callable[[Path], object]] = {
    "config.json": source,
    "tokenizer.model": lambda folder: load_tokenizer(source(folder)),
    "tokenizer.json": lambda folder: load_tokenizer(source(folder)),
    "vocab.txt": lambda folder: source(folder).file("vocab.txt"),
    "model.safetensors": loaded,
    "model.safetensors.index.json": weight_files,
    "pytorch_model.bin": loaded,
    "eva_vit_g.pth": lambda folder: read_tensors(folder / "eva_vit_g.pth"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_pointer_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)

    with pytest.raises(ModelError, match=f"{name} is a Git LFS pointer, .*`git lfs pull`"):
        READERS[name](tmp_path)


def test_other_files_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    assert not is_lfs_pointer(tmp_path / "empty")
    assert not is_lfs_pointer(tmp_path / "absent")
    assert not is_lfs_pointer(Path(__file__))
