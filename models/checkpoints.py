"""Find a checkpoint, tell what it is, and say which one it was afterwards."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from transformers.utils import cached_file

from models.errors import ModelError
from models.settings import ROOT
from models.tokenizer import ChunkTokenizer, JsonTokenizer, SentencePieceTokenizer

HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")
SAMPLES: Final = 16
SAMPLE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that has a readable `config.json`.

    Attributes:
        source: Folder or hub id, for `from_pretrained`.
        config: What `config.json` holds.
        identity: Hub commit, or a hash of the folder's contents; another one means other weights.
    """

    source: str
    config: dict[str, Any]
    identity: str


def locate(checkpoint: str) -> Checkpoint:
    """Find a checkpoint on disk or on the hub.

    Args:
        checkpoint: A folder (as given, or relative to the checkout), or a hub id "owner/name".
    Raises:
        ModelError: If there is no such folder or hub id, or it has no usable `config.json`.
    """
    for folder in (Path(checkpoint).expanduser(), ROOT / checkpoint):
        if folder.is_dir():
            config = _read_config(folder / "config.json", str(folder))
            return Checkpoint(str(folder), config, _folder_identity(folder))
    if not HUB_ID.fullmatch(checkpoint):
        raise ModelError(
            f"checkpoint {checkpoint!r} is no folder and no hub id (owner/name); "
            "pass --checkpoint with one of the two"
        )
    path = Path(_from_hub(checkpoint, "config.json"))
    config = _read_config(path, checkpoint)
    return Checkpoint(checkpoint, config, f"hub:{path.parent.name}")


def require_type(checkpoint: Checkpoint, model_type: str) -> None:
    """Refuse a checkpoint of another architecture.

    Raises:
        ModelError: Naming both architectures.
    """
    found = checkpoint.config.get("model_type")
    if found != model_type:
        raise ModelError(
            f"checkpoint {checkpoint.source} has model_type {found!r} in its config.json, "
            f"but this model needs {model_type!r}; pass another --checkpoint or --model"
        )


def load_tokenizer(checkpoint: Checkpoint) -> ChunkTokenizer:
    """Load `tokenizer.model`, or `tokenizer.json` where there is no such file.

    Raises:
        ModelError: If the checkpoint has neither.
    """
    for name, kind in (
        ("tokenizer.model", SentencePieceTokenizer),
        ("tokenizer.json", JsonTokenizer),
    ):
        if Path(checkpoint.source).is_dir():
            path: Path | None = Path(checkpoint.source, name)
        else:
            found = cached_file(
                checkpoint.source, name, _raise_exceptions_for_missing_entries=False
            )
            path = None if found is None else Path(found)
        if path is not None and path.is_file():
            return kind(path)
    raise ModelError(
        f"checkpoint {checkpoint.source} has no tokenizer.model and no tokenizer.json; "
        "copy one of them from the original checkpoint into it"
    )


def _from_hub(checkpoint: str, name: str) -> str:
    try:
        return str(cached_file(checkpoint, name))
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"checkpoint {checkpoint!r} is no local folder and could not be fetched from the hub "
            f"({reason}); download it and pass --checkpoint FOLDER"
        ) from error


def _read_config(path: Path, checkpoint: str) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(
            f"checkpoint {checkpoint} has no config.json; "
            "pass the folder that `save_pretrained` wrote or a hub download made"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ModelError(f"{path} is not JSON ({error}); download the checkpoint again") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object; download the checkpoint again")
    return config


def _folder_identity(folder: Path) -> str:
    """Hash small files whole and large ones at evenly spaced places: seconds even at 26 GB."""
    digest = hashlib.sha256()
    suffixes = {".json", ".model", ".safetensors", ".bin"}
    for path in sorted(p for p in folder.iterdir() if p.suffix in suffixes):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as file:
            if size <= SAMPLES * SAMPLE_BYTES:
                digest.update(file.read())
            else:
                for index in range(SAMPLES):
                    file.seek(index * (size - SAMPLE_BYTES) // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE_BYTES))
    return f"sha256:{digest.hexdigest()[:16]}"
