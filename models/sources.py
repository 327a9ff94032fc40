"""Find a checkpoint or a part of one: a file, a folder, or a repository on the hub."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.errors import ModelError
from models.file_hashes import file_hashes
from models.json_files import read_json_object
from models.library_errors import one_line
from models.settings import ROOT

WHOLE: Final = "checkpoint"
"""The one part of a checkpoint in transformers' format."""

HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")
QFORMER_TOKENIZER: Final = "qformer_tokenizer"  # a folder in checkpoints of transformers' format
# Subfolders that transformers reads as well: named chat templates, and a processor's second
# tokenizer, in a folder named after the processor's attribute.
READ_FOLDERS: Final = ("additional_chat_templates", "*tokenizer*")
SINGLE_FILES: Final = ("model.safetensors", "pytorch_model.bin")
# Weights, configs, tokenizers and their vocabularies.
SUFFIXES: Final = {".json", ".jinja", ".model", ".txt", ".safetensors", ".bin", ".pth"}
# The largest models have some hundred layers. Names are compared whole: a config's
# `vocab_size_per_layer_input` does not count layers.
MOST_LAYERS: Final = 10_000
DEPTHS: Final = {
    "num_hidden_layers", "num_layers", "n_layer", "n_layers", "layers", "depth",
    "encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers",
    "encoder_num_hidden_layers", "decoder_num_hidden_layers", "encoder_num_layers",
    "decoder_num_layers", "num_encoder_blocks", "num_blocks", "num_conv_layers",
    "num_adapter_layers", "num_attention_layers", "num_global_layers", "resampler_depth",
    "perceiver_resampler_num_layers", "num_nextn_predict_layers",
}  # fmt: skip
# Models have some hundred experts that are modules; embeddings of experts, as in Doge, are tens of
# thousands.
MOST_EXPERTS: Final = 100_000
EXPERTS: Final = {"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"}
POSITIVE: Final = {
    "hidden_size", "vocab_size", "image_size", "patch_size", "num_channels", "num_attention_heads",
    "num_key_value_heads",
}  # fmt: skip
# A clone contains such a pointer, a few lines of text, if a large file was not fetched.
POINTER_START: Final = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class Source:
    """A file, a folder or a hub repository that exists."""

    name: str  # path or hub id
    path: Path | None  # None for a hub repository
    config: dict[str, Any]  # contents of its `config.json`; empty if it has none
    commit: str  # of the hub repository; empty for a file or folder

    @property
    def identity(self) -> str:
        """Hub commit, or a hash of all bytes (26 GB take up to a minute, once).

        It changes when weights or tokenizer files change.

        Raises:
            ModelError: If a file can't be read.
        """
        if self.path is None:
            return f"hub:{self.commit}"
        try:
            return _contents_hash(self.path)
        except OSError as error:
            raise ModelError(
                f"{error.filename or self.path} can't be read ({error.strerror}), or changed while "
                "it was read; check the file, and start again"
            ) from error

    def is_whole(self, family: Family) -> bool:
        """Return whether it is a whole model of a family in transformers' format."""
        return self.config.get("model_type") == family.model_type and "text_config" in self.config

    def local(self) -> Path:
        """Return the file or folder; a hub repository is downloaded first.

        Raises:
            ModelError: If the hub can't be reached.
        """
        # Imported late: slow, and not needed for folders.
        from huggingface_hub import snapshot_download

        if self.path is not None:
            return self.path
        # One set of weights is enough, and safetensors load fastest.
        safe = ("model.safetensors", "model.safetensors.index.json")
        weights = "*.safetensors" if any(_hub_file(self.name, name) for name in safe) else "*.bin"
        wanted = ["*.json", "*.jinja", "*.model", "*.txt", weights]
        try:
            return Path(snapshot_download(self.name, allow_patterns=wanted))
        except OSError as error:
            raise _unreachable_error(self.name, error) from error

    def file(self, name: str) -> Path | None:
        """Return one small file, downloaded if needed; None if it does not exist.

        Raises:
            ModelError: If it is a Git LFS pointer, or the hub can't be reached.
        """
        if self.path is None:
            return _hub_file(self.name, name)
        path = self.path / name
        refuse_lfs_pointer(path)
        return path if os.path.isfile(path) else None


@dataclass(frozen=True, slots=True)
class Family:
    """How checkpoints of a model are recognised."""

    name: str  # in `models.prompts` and the layouts of original files
    model_type: str  # in the `config.json` of a folder in transformers' format
    llm_types: tuple[str, ...]  # in the `config.json` of the original language model
    added_tokens: tuple[str, ...] = ()  # tokens whose embeddings follow those of the tokenizer


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose parts all exist; the only part is `WHOLE` in transformers' format."""

    family: Family
    parts: Mapping[str, Source]

    @property
    def is_whole(self) -> bool:
        """Whether it is one folder in transformers' format."""
        return WHOLE in self.parts

    @property
    def name(self) -> str:
        """Path or hub id; one for each part if there are several."""
        if self.is_whole:
            return self.parts[WHOLE].name
        return " ".join(f"{part}={source.name}" for part, source in self.parts.items())

    @property
    def identity(self) -> str:
        """The identities of all parts."""
        return " ".join(source.identity for source in self.parts.values())

    @property
    def text(self) -> Source:
        """The part with the language model's config and tokenizer."""
        return self.parts[WHOLE if self.is_whole else "llm"]


def find_source(name: str, *, what: str, advice: str) -> Source:
    """Find a file, a folder or a hub repository.

    Args:
        name: A path (as given, or relative to the checkout), or a hub id "owner/name".
        what: Name of the thing to find, for messages.
        advice: What to do if it is not found, for messages.
    Raises:
        ModelError: If it is not found, or its `config.json` is unusable.
    """
    refuse_empty(what, name)
    if not isinstance(name, (str, os.PathLike)):
        raise ModelError(f"{what} is {name!r}; it must be a path or hub id: {advice}")
    name = os.fspath(name)
    for path in (Path(os.path.expanduser(name)), ROOT / name):
        # os.path returns False for impossible paths (300 characters, a NUL), where Path raises.
        if os.path.isdir(path):
            _refuse_closed(path)
            return Source(str(path), path, _read_config(path / "config.json"), "")
        if os.path.isfile(path):
            return Source(str(path), path, {}, "")
        if os.path.lexists(path):
            raise ModelError(
                f"{what} {name!r:.300} is neither a file nor a folder, but a device, a pipe or a "
                f"broken link; {advice}"
            )
    if not HUB_ID.fullmatch(name):
        raise ModelError(
            f"{what} {name!r:.300} is not a file, folder or hub id (owner/name); {advice}"
        )
    found = _hub_file(name, "config.json", required=True)
    assert found is not None  # a missing file is an error
    return Source(name, None, _read_config(found), found.parent.name)


def weight_files(path: Path) -> list[Path]:
    """Return the files with a checkpoint's tensors: the file itself, or a folder's file or shards.

    Raises:
        ModelError: If there are none, or a shard that the index names is missing.
    """
    if os.path.isfile(path):
        return [path]
    for single in (path / name for name in SINGLE_FILES):
        index = single.with_name(f"{single.name}.index.json")
        if os.path.isfile(index):
            return _shards(index)
        if os.path.isfile(single):
            return [single]
    raise ModelError(
        f"{path} contains no weights ({' or '.join(SINGLE_FILES)}, whole or with an index of "
        "shards); download it again"
    )


def refuse_empty(what: str, value: object) -> None:
    """Raise ModelError for an empty text, often the result of an unset shell variable."""
    if isinstance(value, str) and not value.strip():
        raise ModelError(f"{what} is empty (an unset shell variable?); name one or leave it out")


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a file is a Git LFS pointer; False if it can't be read."""
    if not os.path.isfile(path):  # opening a pipe would wait for a writer
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(POINTER_START)) == POINTER_START
    except OSError:
        return False


def refuse_lfs_pointer(path: Path) -> None:
    """Raise ModelError if a file of a checkpoint is a Git LFS pointer."""
    if is_lfs_pointer(path):
        raise ModelError(
            f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in that folder, "
            "or download the checkpoint again"
        )


def _hub_file(repository: str, name: str, *, required: bool = False) -> Path | None:
    from transformers.utils import cached_file  # imported late: slow

    try:
        found = cached_file(repository, name, _raise_exceptions_for_missing_entries=required)
    except OSError as error:
        raise _unreachable_error(repository, error) from error
    return None if found is None else Path(found)


def _unreachable_error(repository: str, error: OSError) -> ModelError:
    return ModelError(
        f"{repository!r:.100} is not a local folder and could not be fetched from the hub "
        f"({one_line(str(error).strip().splitlines()[0])}); download it and name its folder instead"
    )


def _refuse_closed(folder: Path) -> None:
    """Raise ModelError for a folder that the user has no permission to list."""
    try:
        with os.scandir(folder):
            pass
    except OSError as error:
        raise ModelError(
            f"folder {folder} can't be read ({error.strerror}); change its permissions, or copy it"
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    refuse_lfs_pointer(path)
    config = read_json_object(path, "config") if os.path.lexists(path) else {}
    _check_sizes(path, config)
    return config


def _check_sizes(path: Path, config: Any) -> None:
    """Raise ModelError for impossible sizes, some of which would take forever to build."""
    for name, value in config.items() if isinstance(config, dict) else enumerate(config):
        if isinstance(value, (dict, list)):
            _check_sizes(path, value)
        elif isinstance(value, (int, float)):
            too_many = (name in DEPTHS and value > MOST_LAYERS) or (
                name in EXPERTS and value > MOST_EXPERTS
            )
            if too_many or (name in POSITIVE and value <= 0):
                raise ModelError(
                    f"config {path} has {one_line(name)} {value}, which is impossible; the file is "
                    "damaged: copy it again"
                )


def _shards(index: Path) -> list[Path]:
    refuse_lfs_pointer(index)
    homes = read_json_object(index, "index of shards").get("weight_map")
    if not isinstance(homes, dict) or not homes:
        raise ModelError(f"{index} is not an index of shards, with a weight_map; download it again")
    for tensor, home in homes.items():
        if not isinstance(home, str) or not home:
            raise ModelError(
                f"{index} is not an index of shards: the file of {one_line(tensor)} is "
                f"{home!r:.80}, which is not a file name; download it again"
            )
    names = sorted(set(homes.values()))
    missing = [name for name in names if not os.path.isfile(index.parent / name)]
    if missing:
        raise ModelError(
            f"{len(missing)} of {len(names)} shards that {index} names are missing, "
            f"{one_line(missing[0])} among them; download them"
        )
    return [index.parent / name for name in names]


def _contents_hash(path: Path) -> str:
    """Return a hash of the names and contents of all files that can affect a model's answers."""
    root, files = path.parent, {path}
    if path.is_dir():
        folders = [found for name in READ_FOLDERS for found in path.glob(name)]
        inside = [*path.iterdir(), *(one for folder in folders for one in folder.glob("*"))]
        root = path
        files = {one for one in inside if one.suffix in SUFFIXES and os.path.isfile(one)}
        # An index can name shards in other folders and with other suffixes. Tokenizer folders have
        # no weights, and incomplete weights are refused when they are loaded.
        with suppress(ModelError):
            files.update(weight_files(path))
    hashes = file_hashes(files)
    named = sorted((Path(os.path.relpath(file, root)).as_posix(), hashes[file]) for file in files)
    lines = "".join(f"{hash_} {name}\n" for name, hash_ in named)
    digest = hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()
    return f"sha256:{digest[:16]}"
