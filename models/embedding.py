"""Find out by a trial run whether a model takes its prompts as embeddings.

They can where the decoder takes embeddings, a mask of padding and positions that count from the
first token, and nothing else. Not where positions have several axes (M-RoPE), image tokens attend
to each other, or features of the picture enter at later layers.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping
from typing import Any, Final

import torch
from transformers import DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer

from models.generation import EncodedPrompts, ProcessedPrompts

# Tensors that any decoder takes.
PLAIN: Final = {"input_ids", "inputs_embeds", "attention_mask", "position_ids", "cache_position"}
# Of the largest logit, by the size of a number of the model's dtype in bytes.
TOLERANCE: Final = {1: 2e-2, 2: 2e-2, 4: 1e-4}


class _InputsKnown(Exception):
    """The decoder's inputs are known; the rest of the pass is not needed."""


@torch.inference_mode()
def decoder_inputs(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return what a model gives its decoder in a prefill, by name; the decoder is not run.

    Empty where the model does not call one.
    """
    decoder, thread = model.get_decoder(), threading.get_ident()
    names = list(inspect.signature(decoder.forward).parameters)
    found: dict[str, Any] = {}

    def keep(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != thread:
            return
        found.update(zip(names, args, strict=False))
        found.update(kwargs)
        raise _InputsKnown

    hook = decoder.register_forward_pre_hook(keep, with_kwargs=True, prepend=True)
    try:
        model(**inputs)
    except _InputsKnown:
        pass
    finally:
        hook.remove()
    return found


def reason_against(model: Any, inputs: Mapping[str, torch.Tensor]) -> str | None:
    """Return why a model's prompts can't be given as embeddings, as far as its inputs show it.

    Args:
        model: The model.
        inputs: Of a batch of prompts with pictures.
    """
    if model.config.is_encoder_decoder:
        return "it is an encoder-decoder"
    layers = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
    if any(type(layer) is not DynamicLayer for layer in layers):
        return "some of its layers see a window of the prompt only, or keep a state"
    found = decoder_inputs(model, inputs)
    if not isinstance(found.get("inputs_embeds"), torch.Tensor):
        return "its decoder is not given embeddings"
    positions, mask = found.get("position_ids"), found.get("attention_mask")
    if isinstance(positions, torch.Tensor) and positions.dim() > 2:
        return "its positions have several axes (M-RoPE)"
    if mask is not None and not (isinstance(mask, torch.Tensor) and mask.dim() == 2):
        return "it makes its own attention masks, in which image tokens may see each other"
    for name, value in found.items():
        if name not in PLAIN and _holds_tensors(value):
            return f"its decoder is given more than embeddings ({name})"
    return None


@torch.inference_mode()
def same_scores(model: Any, whole: ProcessedPrompts, embedded: EncodedPrompts) -> bool:
    """Tell whether a model scores the first token of answers alike, given ids or embeddings."""
    first, second = (_first_scores(model, prompts.inputs) for prompts in (whole, embedded))
    tolerance = TOLERANCE[min(model.dtype.itemsize, 4)]
    return bool((first - second).abs().max() <= tolerance * first.abs().max())


def _first_scores(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    config = GenerationConfig(
        max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    scores: torch.Tensor = model.generate(**inputs, generation_config=config).logits[0]
    return scores.float()


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_tensors, value))
    return isinstance(value, torch.Tensor)
