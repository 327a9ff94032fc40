"""Tensors of a part by name: safetensors or pickled, in one file or sharded.

Files are mapped, so that a tensor takes memory when it is used and as long as it is held. Pickled
files are read with `weights_only`: nothing in them is executed.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from models.errors import ModelError
from models.sources import refuse_lfs_pointer

# Training runners save {"model": weights, "optimizer": ..., "epoch": ...}.
WRAPPERS: Final = ("model", "state_dict")


class Stored(NamedTuple):
    """Where a tensor is, and how large."""

    file: Path
    shape: tuple[int, ...]
    nbytes: int


def list_tensors(files: Iterable[Path]) -> dict[str, Stored]:
    """Return what the files of a part hold, in their order.

    Raises:
        ModelError: If a file can't be read, or two files hold the same name.
    """
    found: dict[str, Stored] = {}
    for file in files:
        for name, tensor in read_tensors(file).items():
            if name in found:
                raise ModelError(
                    f"{file} holds {name} once more; remove the files that do not belong "
                    "to the checkpoint"
                )
            found[name] = Stored(file, tuple(tensor.shape), tensor.nbytes)
    return found


def read_tensors(file: Path) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a file on the CPU, as they are stored.

    Raises:
        ModelError: If it can't be read, or holds anything else; in one sentence.
    """
    refuse_lfs_pointer(file)
    try:
        if file.suffix == ".safetensors":
            tensors: dict[str, torch.Tensor] = load_file(file)
            return tensors
        # Files that torch wrote before version 1.6 are no archives and can't be mapped.
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
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
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    values = content.values() if isinstance(content, Mapping) else [None]
    if not values or not all(isinstance(value, torch.Tensor) for value in values):
        raise ModelError(f"{file} holds no tensors by name; pass the checkpoint's weights file")
    return content  # type: ignore[no-any-return]  # checked above
