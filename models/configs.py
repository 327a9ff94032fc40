"""Configs of a model's parts, from what the original checkpoints say about themselves."""

from __future__ import annotations

from typing import Any, Final

from transformers import CLIPVisionConfig, LlamaConfig

from models.errors import ModelError
from models.sources import Source

# What decides a LLaMA's architecture. Everything else in old configs is left aside, wrong ids of
# BOS, EOS and padding among it: they are pinned when text is generated.
LLAMA_KEYS: Final = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "hidden_act",
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
    kind, config = source.config.get("model_type"), source.config
    if kind == "clip":
        config = source.config.get("vision_config", {})
    elif kind != "clip_vision_model":
        raise ModelError(
            f"vision {source.name} has model_type {kind!r} in its config.json, but CLIP is needed: "
            "openai/clip-vit-large-patch14-336 for LLaVA-1.5, openai/clip-vit-large-patch14 for "
            "Shikra"
        )
    return CLIPVisionConfig.from_dict({**config, "model_type": "clip_vision_model"})
