"""Tensors of a checkpoint by name: safetensors or pickled, in one file or sharded.

Files are opened one after another and tensors handed over one by one, so that reading a checkpoint
needs the memory of one file at most (of one tensor, where the file can be mapped). Pickled files
are read with `weights_only`: nothing in them is executed.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open

from models.errors import ModelError
from models.lfs import refuse_lfs_pointer

SINGLE_FILES: Final = ("model.safetensors", "pytorch_model.bin")
# Training runners save {"model": weights, "optimizer": ..., "epoch": ...}.
WRAPPERS: Final = ("model", "state_dict")


@dataclass(frozen=True, slots=True)
class TensorFiles:
    """The files that hold the tensors of one part of a model."""

    files: tuple[Path, ...]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor by name, without reading the tensors.

        Raises:
            ModelError: If a file can't be read, or two files hold the same name.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for file in self.files:
            with _opened(file) as content:
                for name in content.names():
                    if name in shapes:
                        raise ModelError(
                            f"{file} holds {name} once more; remove the files that do not belong "
                            "to the checkpoint"
                        )
                    shapes[name] = content.shape(name)
        return shapes

    def read(self, names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield tensors one by one, on the CPU, as they are stored."""
        for file in self.files:
            with _opened(file) as content:
                for name in content.names():
                    if name in names:
                        yield name, content.tensor(name)


def tensor_files(path: Path) -> TensorFiles:
    """Find the tensor files of a checkpoint.

    Args:
        path: A file, or a folder with one file, or with shards and their index.
    Raises:
        ModelError: If there are none, or a shard that the index names is missing.
    """
    if path.is_file():
        return TensorFiles((path,))
    for single in SINGLE_FILES:
        index = path / f"{single}.index.json"
        if index.is_file():
            return TensorFiles(tuple(_shards(index)))
        if (path / single).is_file():
            return TensorFiles((path / single,))
    raise ModelError(
        f"{path} holds no weights ({' or '.join(SINGLE_FILES)}, whole or with an index of shards); "
        "download it again"
    )


def _shards(index: Path) -> list[Path]:
    refuse_lfs_pointer(index)
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index} is not an index of shards; download it again") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(
            f"{len(missing)} of {len(names)} shards that {index} names are missing, "
            f"{missing[0]} among them; download them"
        )
    return [index.parent / name for name in names]


class _Safetensors:
    """An open safetensors file."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def names(self) -> list[str]:
        return list(self._file.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def tensor(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._file.get_tensor(name)
        return tensor


class _Pickled:
    """A loaded state dict."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def tensor(self, name: str) -> torch.Tensor:
        return self._tensors[name]


@contextmanager
def _opened(file: Path) -> Iterator[_Safetensors | _Pickled]:
    """Open a tensor file; whatever is wrong with it becomes one sentence."""
    refuse_lfs_pointer(file)
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as content:
                yield _Safetensors(content)
        else:
            yield _Pickled(_state_dict(file))
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} holds more than tensors and plain values, or is cut short; nothing of it was "
            "executed: download it again, or save its tensors alone with "
            "safetensors.torch.save_file"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"{file} can't be read ({reason}); it is cut short or no checkpoint: download it again"
        ) from error


def _state_dict(file: Path) -> Mapping[str, torch.Tensor]:
    # Files that torch wrote before version 1.6 are no archives and can't be mapped.
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    is_state_dict = isinstance(content, Mapping) and all(
        isinstance(value, torch.Tensor) for value in content.values()
    )
    if not content or not is_state_dict:
        raise ModelError(f"{file} holds no tensors by name; pass the checkpoint's weights file")
    return content  # type: ignore[no-any-return]  # checked above
