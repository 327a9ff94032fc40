"""Where a checkpoint, or a part of one, is: a file, a folder, or a repository on the hub."""

from __future__ import annotations

import hashlib
import json
import os.path
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from huggingface_hub import snapshot_download
from transformers.utils import cached_file

from models.errors import ModelError
from models.file_hashes import file_hashes
from models.lfs import refuse_lfs_pointer
from models.settings import ROOT
from models.tensors import tensor_files

HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")
QFORMER_TOKENIZER: Final = "qformer_tokenizer"  # a folder in checkpoints of transformers' format
# Weights, configs, tokenizers and their vocabularies.
SUFFIXES: Final = {".json", ".model", ".txt", ".safetensors", ".bin", ".pth"}


@dataclass(frozen=True, slots=True)
class Source:
    """A file, a folder or a hub repository that exists.

    Attributes:
        name: Path or hub id.
        path: The file or folder; None for a hub repository.
        config: What its `config.json` holds; empty if it has none.
        commit: Of the hub repository; empty for a file or folder.
    """

    name: str
    path: Path | None
    config: dict[str, Any]
    commit: str

    @property
    def identity(self) -> str:
        """Hub commit, or a hash of the contents; another one means other weights or tokens.

        It covers every byte, so it is computed when asked for: 26 GB take up to a minute once.
        """
        return f"hub:{self.commit}" if self.path is None else _contents_hash(self.path)

    def local(self) -> Path:
        """Return the file or folder; a hub repository is downloaded first.

        Raises:
            ModelError: If the hub can't be reached.
        """
        if self.path is not None:
            return self.path
        # One set of weights is enough, and safetensors are read fastest.
        weights = "*.safetensors" if _hub_file(self.name, "model.safetensors") else "*.bin"
        if _hub_file(self.name, "model.safetensors.index.json"):
            weights = "*.safetensors"
        try:
            folder = snapshot_download(
                self.name, allow_patterns=["*.json", "*.model", "*.txt", weights]
            )
        except OSError as error:
            raise _unreachable(self.name, error) from error
        return Path(folder)

    def file(self, name: str) -> Path | None:
        """Return one small file, downloaded if need be; None if there is none of this name.

        Raises:
            ModelError: If it is a Git LFS pointer, or the hub can't be reached.
        """
        if self.path is None:
            return _hub_file(self.name, name)
        path = self.path / name
        if not path.is_file():
            return None
        refuse_lfs_pointer(path)
        return path


def find_source(name: str, *, what: str, advice: str) -> Source:
    """Find a file, a folder or a hub repository.

    Args:
        name: A path (as given, or relative to the checkout), or a hub id "owner/name".
        what: What is looked for, for messages.
        advice: What to do if there is nothing of this name.
    Raises:
        ModelError: If there is nothing of this name, or its `config.json` is unusable.
    """
    for path in (Path(name).expanduser(), ROOT / name):
        if path.is_dir():
            config = _read_config(path / "config.json")
            return Source(str(path), path, config, "")
        if path.is_file():
            return Source(str(path), path, {}, "")
    if not HUB_ID.fullmatch(name):
        raise ModelError(
            f"{what} {name!r} is no file, no folder and no hub id (owner/name); {advice}"
        )
    try:
        found = Path(str(cached_file(name, "config.json")))
    except OSError as error:
        raise _unreachable(name, error) from error
    return Source(name, None, _read_config(found), found.parent.name)


def _hub_file(repository: str, name: str) -> Path | None:
    try:
        found = cached_file(repository, name, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise _unreachable(repository, error) from error
    return None if found is None else Path(found)


def _unreachable(repository: str, error: OSError) -> ModelError:
    reason = str(error).strip().splitlines()[0]
    return ModelError(
        f"{repository!r} is no local folder and could not be fetched from the hub "
        f"({reason}); download it and name its folder instead"
    )


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    refuse_lfs_pointer(path)
    try:
        config = json.loads(path.read_bytes())  # bytes: UTF-8 or UTF-16, marked or not
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}); download the checkpoint again") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object; download the checkpoint again")
    return config


def _contents_hash(path: Path) -> str:
    """Return a hash of the names and contents of a part's files."""
    root, files = (path, _files(path)) if path.is_dir() else (path.parent, {path})
    names = {Path(os.path.relpath(file, root)).as_posix(): file for file in files}
    hashes = file_hashes(files)
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{hashes[names[name]]} {name}\n".encode(errors="surrogateescape"))
    return f"sha256:{digest.hexdigest()[:16]}"


def _files(folder: Path) -> set[Path]:
    """Return all files of a folder that can decide a model's answers."""
    inside = [*folder.iterdir(), *(folder / QFORMER_TOKENIZER).glob("*")]
    files = {file for file in inside if file.suffix in SUFFIXES and file.is_file()}
    # An index can name shards in other folders and of other suffixes. Folders of tokenizers have
    # no weights, and incomplete weights are refused when they are loaded.
    with suppress(ModelError):
        files.update(tensor_files(folder).files)
    return files
