"""Convert a model's original files, once, to a folder in transformers' format.

The folder appears when it is complete, records its sources and is reused afterwards. Tensors are
copied unchanged, shard by shard, so conversion needs the memory of about two shards for any
model size.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tqdm import tqdm

from eah.swap.lock import acquire, release
from models.checkpoints.finite import refuse_nonfinite
from models.checkpoints.layouts import LAYOUTS, saved_name
from models.checkpoints.locate import check_vicuna
from models.checkpoints.plan import THIRDS, plan_tensors
from models.checkpoints.tensors import Stored, list_tensors, read_tensors
from models.errors import ModelError
from models.file_hashes import cache_folder, file_hashes
from models.json_files import parse_json
from models.library_errors import library_errors, one_line
from models.loading import check_vocabulary, load_tokenizer, refuse_delta
from models.sources import QFORMER_TOKENIZER, WHOLE, Checkpoint, Source, find_source, weight_files
from models.tokenizer_json import write_tokenizer_json

# Part of the converted folder's name: raise it whenever the conversion's result changes.
MAPS_VERSION: Final = 1
SHARD_BYTES: Final = 500_000_000
RECORD: Final = "converted_from.json"
MARKER: Final = ".eah-conversion"  # first file of an unfinished folder, which marks it as ours
PAUSE_S: Final = 0.1
TOKENIZERS: Final = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json")
VOCABULARIES: Final = ("vocab.txt", "tokenizer.json")
logger = logging.getLogger(__name__)


class SourceTensor(NamedTuple):
    """A stored tensor that becomes a parameter, or one third of a fused parameter's rows."""

    name: str
    stored: Stored
    qkv_slot: int | None


Parameters = dict[str, list[SourceTensor]]
"""The source tensors of each parameter, in the files' order."""


def convert_checkpoint(
    checkpoint: Checkpoint, model_class: Any, config: Any, folder: str | None = None
) -> Checkpoint:
    """Return the folder of the converted files; convert them if there is none.

    Args:
        checkpoint: The original files.
        model_class: Class of the model.
        config: Its config.
        folder: The folder; None for one in the cache.
    Raises:
        ModelError: If a tensor is missing, unexpected, of another shape or a delta, a file can't be
            read or written, or the folder contains something else.
    """
    tokenizer = load_tokenizer(checkpoint.text)
    rows = config.get_text_config(decoder=True).vocab_size
    check_vocabulary(checkpoint, rows, tokenizer)
    check_vicuna(checkpoint, rows, tokenizer.get_piece_size())
    parts = {part: source.identity for part, source in checkpoint.parts.items()}
    record = {"family": checkpoint.family.name, "maps": MAPS_VERSION, "parts": parts}
    target = _default_folder(record) if folder is None else _chosen_folder(folder)
    lock = target.parent / f".{target.name}.lock"
    try:
        if not _is_converted(target, record):
            target.parent.mkdir(parents=True, exist_ok=True)
            # Of several processes the first converts, and the others use its result.
            with _lock(lock):
                if not _is_converted(target, record):
                    _convert(checkpoint, model_class, config, target, record)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"original files can't be converted to {target}: {one_line(error)}; name another folder"
        ) from error
    made = find_source(str(target.absolute()), what="converted", advice="convert again")
    return Checkpoint(checkpoint.family, {WHOLE: made})


def model_shapes(model_class: Any, config: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter of a model, built without allocating memory."""
    with torch.device("meta"):
        model = model_class(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Wait for a lock while another process converts; remove its file afterwards."""
    while (descriptor := acquire(path)) is None:
        time.sleep(PAUSE_S)
    try:
        yield
    finally:
        release(descriptor, path)


def _default_folder(record: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    try:
        return cache_folder() / "converted" / f"{record['family']}-{digest[:16]}"
    except RuntimeError as error:
        raise ModelError(f"{error}; name a folder with --converted") from error


def _chosen_folder(name: str) -> Path:
    try:
        os.fsencode(name)
    except ValueError as error:
        raise ModelError(f"folder {name!r} is not a path ({error}); name another one") from error
    if "\0" in name:
        raise ModelError(f"folder {name!r} is not a path; remove the NUL character")
    return Path(os.path.expanduser(name))


def _is_converted(target: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a folder is the conversion of these files; other contents are an error."""
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return False
    made, found = target / RECORD, None
    with suppress(ValueError):  # not JSON, so not ours
        found = parse_json(made.read_bytes()) if made.is_file() else None
    if isinstance(found, dict):
        # Version 0.1 wrote none.
        files = found.pop("files", None) or {}
        if found == record and isinstance(files, dict):
            _refuse_changed(target, files)
            return True
    raise ModelError(
        f"folder {target} contains something other than the conversion of these files and is not "
        "overwritten; name a folder that does not exist"
    )


def _refuse_changed(target: Path, files: Mapping[str, Any]) -> None:
    """Refuse a converted folder that was changed.

    Runs record the identity of the original files, so they would not notice the change.

    Raises:
        ModelError: Naming a changed file.
    """
    there = [target / name for name in files if (target / name).is_file()]
    hashes = file_hashes(there)
    for name, hash_ in files.items():
        if hashes.get(target / name) != hash_:
            raise ModelError(
                f"{target / name} was changed or removed after the conversion; delete {target} to "
                "convert again"
            )


def _convert(
    checkpoint: Checkpoint, model_class: Any, config: Any, target: Path, record: Mapping[str, Any]
) -> None:
    """Write a temporary folder next to the target and rename it."""
    where = f"the config of {checkpoint.name} does not describe {checkpoint.family.name}"
    with library_errors(where, "copy config.json again from the original checkpoint"):
        expected = model_shapes(model_class, config)
    parameters = _plan_parameters(checkpoint, expected)
    size, free = _nbytes(parameters.values()), shutil.disk_usage(target.parent).free
    if free < size:
        raise ModelError(
            f"{target} needs {size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free there; free "
            "space or name another folder"
        )
    logger.warning(
        "converting the original files once: %s will take %.3g GB", target.absolute(), size / 1e9
    )
    unfinished = target.parent / f".{target.name}.partial"
    # Left by a killed process: the holder of the lock is the only one converting.
    _refuse_foreign(unfinished)
    _remove(unfinished)
    unfinished.mkdir()
    try:
        (unfinished / MARKER).touch()
        _write_weights(parameters, unfinished)
        config.architectures = [model_class.__name__]
        config.save_pretrained(unfinished)
        _copy(checkpoint.text, TOKENIZERS, unfinished)
        model = unfinished / TOKENIZERS[0]
        if model.exists():  # transformers' own conversion would give other ids
            write_tokenizer_json(model, unfinished, added=checkpoint.family.added_tokens)
        if QFORMER_TOKENIZER in checkpoint.parts:
            (unfinished / QFORMER_TOKENIZER).mkdir()
            words = checkpoint.parts[QFORMER_TOKENIZER]
            _copy(words, VOCABULARIES, unfinished / QFORMER_TOKENIZER)
        found = (file for file in unfinished.rglob("*") if file.is_file())
        written = sorted(file for file in found if file.name != MARKER)
        hashes = {
            file.relative_to(unfinished).as_posix(): hash_
            for file, hash_ in file_hashes(written).items()
        }
        text = json.dumps({**record, "files": hashes}, indent=2)
        (unfinished / RECORD).write_text(text + "\n")
        (unfinished / MARKER).unlink()
        unfinished.replace(target)
    finally:
        _remove(unfinished)


def _refuse_foreign(unfinished: Path) -> None:
    """Refuse to remove anything that is not an unfinished conversion.

    Raises:
        ModelError: If the user has something of this name.
    """
    if not os.path.lexists(unfinished):
        return
    if unfinished.is_dir() and not unfinished.is_symlink():
        # The record is written before the marker is removed.
        names = set(os.listdir(unfinished))
        if not names or names & {MARKER, RECORD}:
            return
    raise ModelError(
        f"{unfinished} blocks the conversion and was not made by one; move it away or name "
        "another folder"
    )


def _remove(unfinished: Path) -> None:
    """Remove an unfinished folder, its marker last, in case of a kill in between."""
    with suppress(OSError):
        for path in unfinished.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != MARKER:
                path.unlink()
    shutil.rmtree(unfinished, ignore_errors=True)


def _plan_parameters(checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]]) -> Parameters:
    """Return the source tensors of every parameter, after all checks."""
    layout = LAYOUTS[checkpoint.family.name]
    names = {part: checkpoint.parts[part].name for part in layout}
    stored = {part: list_tensors(weight_files(checkpoint.parts[part].local())) for part in layout}
    shapes = {part: {name: s.shape for name, s in found.items()} for part, found in stored.items()}
    parameters: Parameters = {}
    for part, found in plan_tensors(expected, layout, shapes, names).items():
        for name, to in found.items():
            tensor = SourceTensor(name, stored[part][name], to.qkv_slot)
            parameters.setdefault(to.target, []).append(tensor)
            if to.target.endswith("model.norm.weight"):
                refuse_delta(f"{part} ({names[part]})", read_tensors(tensor.stored.file)[name])
    return parameters


def _write_weights(parameters: Parameters, folder: Path) -> None:
    """Write safetensors, and an index of them if there are several."""
    shards = list(_shards(parameters))
    file_names: dict[str, str] = {}
    for number, shard in enumerate(tqdm(shards, "convert", unit="shard", disable=None), start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        if len(shards) == 1:
            name = "model.safetensors"
        save_file(_read_shard(shard), folder / name, metadata={"format": "pt"})
        (folder / name).chmod(
            folder.stat().st_mode & 0o666
        )  # safetensors grants access to the owner only
        file_names |= dict.fromkeys(map(saved_name, shard), name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": _nbytes(parameters.values())}, "weight_map": file_names}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _shards(parameters: Parameters) -> Iterator[Parameters]:
    """Yield parameters in groups of at most SHARD_BYTES, or of one that is larger."""
    shard: Parameters = {}
    for target, made_of in parameters.items():
        if shard and _nbytes([*shard.values(), made_of]) > SHARD_BYTES:
            yield shard
            shard = {}
        shard[target] = made_of
    yield shard


def _nbytes(parameters: Iterable[list[SourceTensor]]) -> int:
    """Return the size of parameters; thirds without a tensor are zeros and count as well."""
    return sum(
        first.stored.nbytes * (1 if first.qkv_slot is None else THIRDS) for first, *_ in parameters
    )


def _read_shard(shard: Parameters) -> dict[str, torch.Tensor]:
    """Read the parameters of a shard, by the names that they are saved under."""
    by_file: dict[Path, list[tuple[str, SourceTensor]]] = {}
    for target, made_of in shard.items():
        for one in made_of:
            by_file.setdefault(one.stored.file, []).append((saved_name(target), one))
    made: dict[str, torch.Tensor] = {}
    for file, wanted in by_file.items():
        tensors = read_tensors(file)
        for saved, one in wanted:
            tensor = tensors[one.name]
            refuse_nonfinite(str(file), [(one.name, tensor)])
            if one.qkv_slot is None:
                # A copy, so that the file's memory is released with its mapping.
                made[saved] = tensor.clone(memory_format=torch.contiguous_format)
            else:
                rows = tensor.shape[0]
                whole = made.setdefault(saved, tensor.new_zeros(THIRDS * rows, *tensor.shape[1:]))
                whole[one.qkv_slot * rows : (one.qkv_slot + 1) * rows] = tensor
    return made


def _copy(source: Source, names: tuple[str, ...], folder: Path) -> None:
    """Copy the small files of a source, or the source itself if it is a file."""
    if source.path is not None and source.path.is_file():
        shutil.copyfile(source.path, folder / names[0])
        return
    for name in names:
        if (found := source.file(name)) is not None:
            shutil.copyfile(found, folder / name)
