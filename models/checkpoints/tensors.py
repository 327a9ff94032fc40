"""Read the tensors of a part by name: safetensors or pickled, in one file or sharded.

Files are memory-mapped, so a tensor takes memory only while it is used. Pickled files are read with
`weights_only`: nothing in them is executed.
"""

from __future__ import annotations

import os.path
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file

from models.errors import ModelError
from models.library_errors import library_errors, one_line
from models.sources import refuse_lfs_pointer

# Training runners save {"model": weights, "optimizer": ..., "epoch": ...}.
WRAPPERS: Final = ("model", "state_dict")
# GPT-2, GPT-J and GPT-NeoX saved causal masks with the weights; transformers ignores them.
MASKS: Final = (".attn.bias", ".attention.bias")
MASK_DTYPES: Final = (torch.bool, torch.uint8)


class Stored(NamedTuple):
    """A tensor's file, shape, size in bytes and dtype."""

    file: Path
    shape: tuple[int, ...]
    nbytes: int
    dtype: torch.dtype


def is_mapped(file: Path) -> bool:
    """Return whether a file can be memory-mapped, so that shapes cost no reading.

    Files written by torch before version 1.6 are not archives and can't be mapped.
    """
    return file.suffix == ".safetensors" or is_zipfile(file)


def check_tensors(files: Iterable[Path], *, quantized: bool = False) -> None:
    """Check the files that can be mapped, before a library reads them.

    Args:
        files: The model's weights.
        quantized: Whether integer weights are allowed; otherwise they count as damage.
    Raises:
        ModelError: If a file can't be read, or contains what no model has and a library might
            accept.
    """
    for name, stored in list_tensors(file for file in files if is_mapped(file)).items():
        is_weight = name.endswith((".weight", ".bias")) and not _is_causal_mask(name, stored)
        if is_weight and not stored.dtype.is_floating_point and not quantized:
            kind = str(stored.dtype).removeprefix("torch.")
            raise ModelError(
                f"{stored.file} contains {one_line(name)} as {kind}, but weights are "
                "floating-point numbers; it is damaged, or quantized in a way that its "
                "config.json does not name: download it again"
            )


def list_tensors(files: Iterable[Path]) -> dict[str, Stored]:
    """List the tensors of a part's files, in order.

    Raises:
        ModelError: If a file can't be read, or two files contain the same name.
    """
    found: dict[str, Stored] = {}
    for file in files:
        for name, tensor in read_tensors(file).items():
            if name in found:
                raise ModelError(
                    f"{file} contains {one_line(name)} again; remove the files that do not belong "
                    "to the checkpoint"
                )
            found[name] = Stored(file, tuple(tensor.shape), tensor.nbytes, tensor.dtype)
    return found


def read_tensors(file: Path) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a file on the CPU, unchanged.

    Raises:
        ModelError: If it can't be read, or contains anything else.
    """
    refuse_lfs_pointer(file)
    if not os.path.isfile(file):
        raise ModelError(f"{file} is not a regular file; download it again")
    advice = "it is truncated or not a checkpoint: download it again"
    with library_errors(f"{file} can't be read", advice):
        if file.suffix == ".safetensors":
            tensors: dict[str, torch.Tensor] = load_file(file)
            return tensors
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_mapped(file))
        except (pickle.UnpicklingError, RuntimeError) as error:
            # For formats that it can't read safely, torch advises unsafe reading.
            if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
                raise ModelError(
                    f"{file} contains more than tensors and plain values, or is truncated; nothing "
                    "in it was executed: download it again, or save only its tensors with "
                    "safetensors.torch.save_file"
                ) from error
            raise
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    pairs = content.items() if isinstance(content, Mapping) else [("", None)]
    if not pairs or not all(isinstance(key, str) and _is_plain(value) for key, value in pairs):
        raise ModelError(
            f"{file} does not contain named tensors; pass the checkpoint's weights file"
        )
    return content  # type: ignore[no-any-return]  # checked above


def _is_plain(value: object) -> bool:
    """Return whether a value is a plain strided tensor."""
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return False
    return not (value.is_quantized or value.is_meta)


def _is_causal_mask(name: str, stored: Stored) -> bool:
    """Return whether a tensor is a mask of shape (1, 1, length, length) named as a bias."""
    return (
        f".{name}".endswith(MASKS)
        and stored.dtype in MASK_DTYPES
        and stored.shape == (1, 1, *stored.shape[-1:] * 2)
    )
