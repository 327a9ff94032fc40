"""Load a model by name: choose its wrapper, checkpoint, device and precision."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers.utils import logging as transformers_logging

from models.checkpoints.tensors import check_tensors, list_tensors
from models.errors import ModelError
from models.library_errors import library_errors, one_line
from models.precision import AUTO, Quantization, bits_and_bytes, check_quantization, resolve_device
from models.settings import ModelSettings, model_settings
from models.sources import (
    Checkpoint,
    Source,
    find_source,
    refuse_empty,
    weight_files,
)
from models.tokenizer import ChunkTokenizer, JsonTokenizer, SentencePieceTokenizer

if TYPE_CHECKING:
    from PIL import Image

    from models.base import VLM
    from models.generation import ShownPrompt

HF: Final = "hf"
# The paper's models by the model_type of their checkpoints.
MODEL_TYPES: Final = {
    "llava": "llava-1.5",
    "llava_llama": "llava-1.5",
    "shikra": "shikra",
    "instructblip": "instructblip",
    "blip-2": "minigpt4",
}
WIDTHS: Final = (4096, 5120)  # of LLaVA-1.5's 7B and 13B
MAX_VOCABULARY: Final = 32064  # LLaMA's 32000 tokens, <image>, <pad>, rounded up to 64
CLIP_SIDE: Final = 336
# Buffers that older versions of transformers saved; they are computed when a model is built.
BUFFERS: Final = re.compile(r"(.*\.)?(position_ids|inv_freq)")
# The last norm's weights are around 1 in every LLaMA, and around 0 in delta weights.
SMALLEST_NORM: Final = 0.05


@dataclass(frozen=True, slots=True)
class Description:
    """The model that will be loaded: everything that decides its answers.

    The fields from `protocol` on are the arguments of `load` with defaults resolved.
    """

    model: str  # name in `configs/`; "hf-" and the checkpoint's name for others
    family: str  # such as "llava-1.5"
    checkpoint: str  # folder or hub id, or one for each part
    weights: str  # hub commit or hash of the contents; changes with the weights
    protocol: str
    device: str
    dtype: str
    quantization: str | None = None
    system: str | None = None


def load(
    name: str,
    *,
    checkpoint: str | None = None,
    parts: Mapping[str, str] | None = None,
    protocol: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantization: str | None = None,
    converted: str | None = None,
    system: str | None = None,
) -> VLM:
    """Load a model with its wrapper.

    Args:
        name: One of `available()`, such as "llava-1.5"; "hf" for any vision-language model of
            transformers; "auto" to detect it from the checkpoint's config.
        checkpoint: Folder or hub id, in transformers' format or as the authors published it; None
            for the one in `configs/<name>.yaml`.
        parts: Original files by part (`PARTS`) instead of the config's.
        protocol: Prompt and preprocessing, "opera" or "official" ("chat" or "chat-short" for
            "hf"); None for the config's.
        device: "cpu", "cuda:N", or "auto" to spread over all GPUs; None for the first GPU, else
            the CPU.
        dtype: "float32", "float16", "bfloat16", "mixed" (as the paper's wrapper mixes float16 and
            float32) or "auto" (mixed on a GPU, else float32); None for the config's.
        quantization: "8bit" or "4bit" weights, by bitsandbytes: in the language model, and with
            "hf" also in the vision tower.
        converted: Folder that original files are converted to, once; None for one in the cache.
        system: System message, for "hf"; None for the chat template's default.
    Raises:
        ModelError: If an argument is invalid or does not fit the others.
    """
    _refuse_empty(locals())
    _, settings, wrapper = _wrapper(name, checkpoint)
    protocol, device = protocol or settings.protocol, resolve_device(device)
    wrapper.check_protocol(protocol, system)
    kind = check_quantization(quantization, device)
    located = wrapper.find(settings, checkpoint, parts)
    _check_converted(located, converted)
    return wrapper.load(
        located,
        protocol=protocol,
        device=device,
        precision=wrapper.resolve_precision(dtype or settings.dtype, device),
        quantization=kind,
        **({} if system is None else {"system": system}),
        **({} if converted is None else {"converted": converted}),
    )


def describe(
    name: str,
    *,
    checkpoint: str | None = None,
    parts: Mapping[str, str] | None = None,
    protocol: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantization: str | None = None,
    converted: str | None = None,
    system: str | None = None,
) -> Description:
    """Describe what `load` would load, without loading it; same arguments and errors."""
    _refuse_empty(locals())
    name, settings, wrapper = _wrapper(name, checkpoint)
    protocol, device = protocol or settings.protocol, resolve_device(device)
    wrapper.check_protocol(protocol, system)
    located = wrapper.find(settings, checkpoint, parts)
    _check_converted(located, converted)
    return Description(
        model=f"{HF}-{Path(located.name).name}" if name == HF else name,
        family=located.family.name,
        checkpoint=located.name,
        weights=located.identity,
        protocol=protocol,
        device=device,
        dtype=wrapper.resolve_precision(dtype or settings.dtype, device).name,
        quantization=check_quantization(quantization, device),
        system=system,
    )


def show_prompt(
    name: str,
    question: str,
    image: Image.Image,
    *,
    checkpoint: str | None = None,
    parts: Mapping[str, str] | None = None,
    protocol: str | None = None,
    system: str | None = None,
    **_: Any,
) -> ShownPrompt:
    """Return the prompt for a question about a picture; no weights are loaded.

    Other arguments and errors as in `load`.
    """
    settings, wrapper = _wrapper(name, checkpoint)[1:]
    located = wrapper.find(settings, checkpoint, parts)
    options = {} if system is None else {"system": system}
    return wrapper.prompt_of(located, protocol or settings.protocol, question, image, **options)


def recognise(name: str, checkpoint: str | None) -> str:
    """Return a model's name; for "auto", detect one of the paper's models, or else return "hf".

    Raises:
        ModelError: If it is "auto", and no checkpoint with a config is named.
    """
    if name != AUTO:
        return name
    if checkpoint is None:
        raise ModelError(
            "--model auto needs --checkpoint, a folder or hub id with a config.json; name one, or "
            "name the model"
        )
    config = find_source(checkpoint, what="checkpoint", advice="check the path").config
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise ModelError(
            f"checkpoint {checkpoint} has no config.json that names a model_type, so --model auto "
            "can't detect the model; name it"
        )
    text, vision = (_section(config, f"{part}_config") for part in ("text", "vision"))
    if text.get("model_type", "llama") != "llama":
        return HF
    found = MODEL_TYPES.get(kind, HF)
    width = text.get("hidden_size", config.get("hidden_size", WIDTHS[0]))
    if found != "llava-1.5":
        return found
    # Other models use LLaVA's classes: with LLaMA 3, a small LLaMA, or another vision tower.
    tower = vision.get("model_type"), vision.get("image_size")
    rows = text.get("vocab_size", 0)
    if width not in WIDTHS or not isinstance(rows, int) or rows > MAX_VOCABULARY:
        return HF
    if text and tower != ("clip_vision_model", CLIP_SIDE):
        return HF
    return "llava-1.5-13b" if width == WIDTHS[1] else found


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def wrapper_of(settings: ModelSettings) -> type[VLM]:
    """Return the wrapper class that a model's config names."""
    module, _, attribute = settings.wrapper.rpartition(".")
    wrapper: type[VLM] = getattr(importlib.import_module(module), attribute)
    return wrapper


def _wrapper(name: str, checkpoint: str | None) -> tuple[str, ModelSettings, type[VLM]]:
    """Return a model's name ("auto" resolved), settings and wrapper class."""
    name = recognise(name, checkpoint)
    settings = model_settings(name)
    return name, settings, wrapper_of(settings)


def load_tokenizer(source: Source) -> ChunkTokenizer:
    """Load `tokenizer.model`, or `tokenizer.json` if there is no such file.

    Raises:
        ModelError: If the checkpoint has neither.
    """
    if (model := source.file("tokenizer.model")) is not None:
        return SentencePieceTokenizer(model)
    if (fast := source.file("tokenizer.json")) is not None:
        return JsonTokenizer(fast)
    raise ModelError(
        f"checkpoint {source.name} has no tokenizer.model and no tokenizer.json; "
        "copy one of them from the original checkpoint into it"
    )


def check_vocabulary(checkpoint: Checkpoint, rows: int, tokenizer: ChunkTokenizer) -> None:
    """Raise ModelError for a language model with fewer embeddings than its tokenizer needs."""
    if not isinstance(rows, int):
        raise ModelError(
            f"the config.json of {checkpoint.text.name} has vocab_size {rows!r}; copy it "
            "again from the original checkpoint"
        )
    tokens, more = tokenizer.get_piece_size(), len(checkpoint.family.added_tokens)
    where = f"llm ({checkpoint.text.name}) has {rows} embeddings for {tokens} tokens"
    if rows < tokens:
        raise ModelError(
            f"{where}; model and tokenizer are from different checkpoints: copy the right "
            "tokenizer.model into it"
        )
    if rows < tokens + more:
        raise ModelError(
            f"{where}, but {checkpoint.family.name} needs {more} more, for its image "
            "tokens; it belongs to another model, or is incomplete: name the right one"
        )


def load_pretrained(
    model_class: Any,
    name: str,
    *,
    config: Any = None,
    dtype: torch.dtype | str,
    float32: Sequence[str] = (),
    device: str,
    quantization: Quantization | None = None,
    unquantized: Sequence[str] = (),
) -> Any:
    """Load a folder or hub repository in transformers' format; fail unless all weights match.

    Args:
        model_class: Class of transformers, or one derived from it, or an `AutoModel...`.
        name: Folder or hub id.
        config: The model's config; None for the folder's.
        dtype: Dtype of the weights; "auto" for the stored one.
        float32: Modules and parameters that stay in float32 under a lower dtype, by the last part
            of their names. transformers 5 no longer accepts a dtype for each part of a model.
        device: As in `load`.
        quantization: Quantization of linear layers, by bitsandbytes.
        unquantized: Full names of modules whose linear layers are not quantized.
    Returns:
        The model in evaluation mode.
    Raises:
        ModelError: If a weight is missing, unexpected, of another shape or a delta, or a file is
            missing or damaged.
    """
    folder = Path(name).expanduser()
    files = weight_files(folder) if folder.is_dir() else []
    check_tensors(files, quantized=getattr(config, "quantization_config", None) is not None)
    options: dict[str, Any] = {} if config is None else {"config": config}
    if quantization is not None:
        options["quantization_config"] = bits_and_bytes(quantization, dtype, unquantized)
    loaded = model_class
    if float32:
        # transformers reads this only from the class; __module__ marks it as transformers' own.
        own = {"__module__": model_class.__module__, "_keep_in_fp32_modules_strict": [*float32]}
        loaded = type(model_class.__name__, (model_class,), own)
    advice = "download it again, or name another one"
    try:
        with library_errors(f"{name} can't be loaded", advice), _silence_transformers():
            model, found = loaded.from_pretrained(
                folder if files else name,
                dtype=dtype,
                device_map=AUTO if device == AUTO else {"": device},
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, together with other problems
                **options,
            )
    except ModelError:
        list_tensors(files)  # raises an error that names the file, if one is damaged
        raise
    model.__class__ = model_class if float32 else model.__class__
    _refuse_wrong_weights(name, found)
    for path, module in model.named_modules():
        if path.endswith("model.norm") and type(module).__name__ == "LlamaRMSNorm":
            refuse_delta(f"checkpoint {name}", module.weight)
    return model.requires_grad_(False).eval()


def _check_converted(checkpoint: Checkpoint, converted: str | None) -> None:
    """Refuse --converted for a checkpoint that needs no conversion.

    Raises:
        ModelError: If it is given.
    """
    if converted is not None and checkpoint.is_whole:
        raise ModelError(
            f"--converted {converted} is for original files, and checkpoint {checkpoint.name} "
            "is in transformers' format already; leave it out"
        )


def _refuse_empty(arguments: Mapping[str, Any]) -> None:
    """Refuse empty arguments of `load`, which would otherwise mean the config's."""
    for what, value in {**arguments, **(arguments["parts"] or {})}.items():
        refuse_empty("model" if what == "name" else what, value)


@contextmanager
def _silence_transformers() -> Iterator[None]:
    """Suppress transformers' own report of wrong weights, and its progress bar in log files."""
    level = transformers_logging.get_verbosity()
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()


def _refuse_wrong_weights(name: str, found: Mapping[str, Any]) -> None:
    """Refuse weights that are missing, unexpected or of another shape."""
    shapes: dict[str, str] = {}
    for one in found["mismatched_keys"]:
        if isinstance(one, str):  # transformers 4 gives only the name
            shapes[one] = f"{one} of another shape than the model's"
        else:
            key, there, needed = one
            shapes[key] = f"{key} of shape {tuple(there)}, but the model needs {tuple(needed)}"
    missing = {*found["missing_keys"]} - shapes.keys()
    unexpected = [key for key in found["unexpected_keys"] if not BUFFERS.fullmatch(key)]
    amiss = []
    if missing:
        amiss.append(f"lacks {_list_names(missing)}")
    if unexpected:
        amiss.append(f"contains {_list_names(unexpected)}, which this model does not have")
    if shapes:
        amiss.append(f"contains {_list_names(shapes.values())}")
    if amiss:
        raise ModelError(
            f"checkpoint {name} {', and '.join(amiss)}; it is incomplete or belongs to another "
            "model: download it again, or name the right one"
        )


def _list_names(names: Iterable[str]) -> str:
    first, *others = sorted(map(one_line, names))
    return f"{first} and {len(others)} more" if others else first


def refuse_delta(where: str, norm: torch.Tensor) -> None:
    """Refuse delta weights (differences to LLaMA's), as published for Vicuna and Shikra.

    Args:
        where: The checkpoint or file, for the message.
        norm: Weights of the language model's last norm.
    Raises:
        ModelError: If the weights are a delta.
    """
    if norm.float().abs().mean() < SMALLEST_NORM:
        raise ModelError(
            f"{where} contains delta weights, the differences to LLaMA's; add them to LLaMA-7B "
            "first (Vicuna: python -m fastchat.model.apply_delta, Shikra: mllm/models/shikra/"
            "apply_delta.py, each with --base LLAMA --target FOLDER --delta DELTA) and pass the "
            "result"
        )
