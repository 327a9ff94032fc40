"""Find every part of a model's original files: language model, vision tower, Q-Former, projector.

Each is stored as its authors published it; its kind is detected from its contents.
"""

from __future__ import annotations

import logging
import os.path
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from transformers import CLIPVisionConfig, LlamaConfig

from models.checkpoints.layouts import LAYOUTS
from models.checkpoints.tensors import read_tensors
from models.errors import ModelError
from models.settings import PARTS, ModelSettings
from models.sources import Checkpoint, Family, Source, find_source

LAVIS: Final = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models"
EVA: Final = f"eva_vit_g.pth, {LAVIS}/BLIP2/eva_vit_g.pth"
# Where the paper's README gets the parts.
ORIGINS: Final = {
    ("instructblip", "vision"): EVA,
    ("minigpt4", "vision"): EVA,
    ("instructblip", "qformer"): "instruct_blip_vicuna7b_trimmed.pth, "
    f"{LAVIS}/InstructBLIP/instruct_blip_vicuna7b_trimmed.pth",
    ("minigpt4", "qformer"): "blip2_pretrained_flant5xxl.pth, "
    f"{LAVIS}/BLIP2/blip2_pretrained_flant5xxl.pth",
    ("minigpt4", "projector"): "pretrained_minigpt4_7b.pth, linked from MiniGPT-4's README",
    ("instructblip", "llm"): "Vicuna-7B v1.1 in transformers' format, such as lmsys/vicuna-7b-v1.1",
    ("minigpt4", "llm"): "Vicuna-7B v0 in transformers' format, such as Vision-CAIR/vicuna-7b",
    ("shikra", "llm"): "shikras/shikra-7b-delta-v1 added to LLaMA-7B by Shikra's apply_delta.py",
    ("llava-1.5", "llm"): "liuhaotian/llava-v1.5-7b",
    ("llava-1.5", "vision"): "openai/clip-vit-large-patch14-336",
    ("shikra", "vision"): "openai/clip-vit-large-patch14",
    ("instructblip", "qformer_tokenizer"): "the vocab.txt of bert-base-uncased",
}

# The keys that decide a LLaMA's architecture. All other keys of old configs are ignored, including
# wrong ids of BOS, EOS and padding, which are set for generation.
LLAMA_KEYS: Final = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "vocab_size", "max_position_embeddings", "rms_norm_eps", "rope_theta",
    "rope_scaling", "hidden_act",
)  # fmt: skip
# By a tensor that only this part of the BLIP family has.
BLIP_PARTS: Final = {
    "query_tokens": "qformer",
    "llama_proj.weight": "projector",
    "blocks.0.attn.qkv.weight": "vision",
}
logger = logging.getLogger(__name__)


def locate(
    family: Family, found: Source | None, chosen: Mapping[str, str], settings: ModelSettings
) -> Checkpoint:
    """Find the parts of a model's original files.

    Args:
        family: The model.
        found: A file, folder or repository with some of its parts; None if parts are named singly.
        chosen: Parts that the user named; they take precedence.
        settings: The model's, with the parts that `configs/<model>.yaml` names.
    Raises:
        ModelError: If something is missing, or is of another model.
    """
    for part in chosen:
        if part not in PARTS:
            raise ModelError(f"part {part!r} is unknown; a model has {', '.join(PARTS)}")
    if found is not None and found.is_whole(family):
        raise ModelError(
            f"checkpoint {found.name} is a whole model; leave out {', '.join(map(_flag, chosen))}"
        )
    inside = {} if found is None else _recognise_parts(family, found)
    needed = list(LAYOUTS[family.name])
    if (family.name, "qformer_tokenizer") in ORIGINS:
        needed.append("qformer_tokenizer")
    for part in chosen:
        if part not in needed:
            raise ModelError(
                f"{family.name} has no separate part {part!r}; its parts are {', '.join(needed)}"
            )
    parts = {}
    for part in needed:
        origin = ORIGINS[family.name, part]
        held = inside[part].name if part in inside else getattr(settings, part)
        if (name := chosen.get(part, held)) is None:
            raise ModelError(
                f"{family.name} needs its {part} part, {origin}; pass it with {_flag(part)}"
            )
        what, advice = f"{part} of {family.name}", f"get {origin}, and pass it with {_flag(part)}"
        parts[part] = find_source(name, what=what, advice=advice)
    llm = parts["llm"]
    if (kind := llm.config.get("model_type")) not in family.llm_types:
        raise ModelError(
            f"llm of {family.name}: {llm.name} has model_type {kind!r} in its config.json, but "
            f"{' or '.join(map(repr, family.llm_types))} is needed: {ORIGINS[family.name, 'llm']}"
        )
    if not llm.config.get("hidden_size"):
        raise ModelError(f"{llm.name}/config.json has no hidden_size; download it again")
    return Checkpoint(family, parts)


def check_vicuna(checkpoint: Checkpoint, rows: int, tokens: int) -> None:
    """Distinguish the versions of Vicuna by the number of embeddings.

    Vicuna v0 has one more than its tokenizer has tokens, for padding; v1.1 has as many.

    Raises:
        ModelError: If it is v0, and InstructBLIP needs v1.1.
    """
    family = checkpoint.family.name
    where = f"llm ({checkpoint.text.name}) has {rows} embeddings for {tokens} tokens"
    if family == "instructblip" and rows != tokens:
        raise ModelError(
            f"{where}, as Vicuna v0 does; InstructBLIP was trained with v1.1, which has as many: "
            f"pass {ORIGINS[family, 'llm']}"
        )
    if family == "minigpt4" and rows != tokens + 1:
        logger.warning(
            "%s; Vicuna v0, which MiniGPT-4 was trained with, has one more: if this is v1.1, the "
            "answers will be poor, and %s is needed",
            where,
            ORIGINS[family, "llm"],
        )


def llama_config(source: Source) -> Any:
    """Return the config of a LLaMA, Vicuna, LLaVA or Shikra folder's language model."""
    known = {key: source.config[key] for key in LLAMA_KEYS if source.config.get(key) is not None}
    # Configs of LLaMA-1 say "max_sequence_length".
    if "max_sequence_length" in source.config:
        known.setdefault("max_position_embeddings", source.config["max_sequence_length"])
    return LlamaConfig(
        **known, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False
    )


def clip_config(source: Source) -> Any:
    """Return the config of a CLIP vision tower.

    Raises:
        ModelError: If the folder is not CLIP's.
    """
    kind = source.config.get("model_type")
    config = source.config.get("vision_config", {}) if kind == "clip" else source.config
    if kind not in ("clip", "clip_vision_model"):
        raise ModelError(
            f"vision {source.name} has model_type {kind!r} in its config.json, but CLIP is needed: "
            "openai/clip-vit-large-patch14-336 for LLaVA-1.5, openai/clip-vit-large-patch14 for "
            "Shikra"
        )
    return CLIPVisionConfig.from_dict({**config, "model_type": "clip_vision_model"})


def _flag(part: str) -> str:
    return "--" + part.replace("_", "-")


def _recognise_parts(family: Family, source: Source) -> dict[str, Source]:
    """Return the parts of a checkpoint in a file, folder or repository."""
    kind = source.config.get("model_type")
    if kind in family.llm_types and "text_config" not in source.config:
        return {"llm": source}
    if source.config:
        raise ModelError(
            f"checkpoint {source.name} has model_type {kind!r} in its config.json, "
            f"but this model needs {family.model_type!r}; pass another --checkpoint or --model"
        )
    path = source.local()
    found: dict[str, Source] = {}
    for entry in [path] if path.is_file() else sorted(filter(_is_part, path.iterdir())):
        held = find_source(str(entry), what="part", advice="check the path")
        part = _part_of(held)
        if part in found:
            raise ModelError(
                f"checkpoint {source.name} has two {part} parts, {found[part].name} and {entry}; "
                "name the right one with its flag"
            )
        if part is not None:
            found[part] = held
    if not found:
        raise ModelError(
            f"checkpoint {source.name} has no config.json and none of a model's original files; "
            "pass the folder that `save_pretrained` wrote or a hub download made"
        )
    return found


def _is_part(path: Path) -> bool:
    """Return whether a path may be a part: not a pipe, device or dangling link."""
    return os.path.isfile(path) or os.path.isdir(path)


def _part_of(source: Source) -> str | None:
    """Return the part that a file or folder is, by its tensors' names or its config."""
    path = Path(source.name)
    if path.suffix in {".pth", ".bin", ".safetensors"} and path.is_file():
        names = read_tensors(path)
        return next((part for name, part in BLIP_PARTS.items() if name in names), None)
    if source.config:
        return "llm" if "num_hidden_layers" in source.config else "vision"
    is_vocabulary = path.name == "vocab.txt" or (path / "vocab.txt").is_file()
    return "qformer_tokenizer" if is_vocabulary else None
