"""Greedy decoding and sampling where the scores of a token come from several prompts.

Every step is one forward pass: the prompts of all branches are rows of one batch, and what a
method makes of their scores chooses the token that all branches go on with.

Axes: B prompts, G branches, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from models.decoding.base import Request
from models.generation import PAD, EncodedPrompts, image_tokens

Combine = Callable[[Any, torch.Tensor], torch.Tensor]
"""Returns scores (B, V) from the model's output and the logits of its last tokens, (G * B, V)."""


@torch.inference_mode()
def decode(
    request: Request, prompts: EncodedPrompts, combine: Combine, *, hidden_states: bool = False
) -> torch.Tensor:
    """Generate token by token.

    Args:
        request: Model, settings, and what ends an answer.
        prompts: The branches' prompts, `joined`; shape (G * B, S, E).
        combine: Makes the scores of the next token.
        hidden_states: Whether the model's output is to have them.
    Returns:
        New ids, shape (B, T), padded with 0 behind EOS.
    """
    model, config = request.model, request.config
    batch, branches = (
        len(request.prompts.embeds),
        len(prompts.embeds) // len(request.prompts.embeds),
    )
    warpers = _warpers(config)
    mask = prompts.attention_mask
    ids = mask.new_zeros(batch, 0)
    done = torch.zeros(batch, dtype=torch.bool, device=mask.device)
    inputs: dict[str, Any] = {"inputs_embeds": prompts.embeds}
    places = prompts.places()
    cache = None
    with image_tokens(model, prompts.image_mask):
        while True:
            output = model(
                **inputs,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                output_hidden_states=hidden_states,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            # A model over several devices leaves its logits on the last one.
            scores = combine(output, output.logits[:, -1].float().to(mask.device))
            if request.first is not None:
                request.first.see(scores)
            scores = warpers(ids, request.processors(ids, scores))
            token = _chosen(scores, sample=bool(config.do_sample))
            token = torch.where(done, PAD, token)
            ids = torch.cat([ids, token[:, None]], dim=1)
            done = done | (token == config.eos_token_id) | request.stopping(ids, scores)
            if done.all() or ids.shape[1] >= config.max_new_tokens:
                return ids
            inputs = {"input_ids": token.repeat(branches)[:, None]}
            places = places[:, -1:] + 1
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)


def _warpers(config: GenerationConfig) -> LogitsProcessorList:
    """Return what sampling cuts off, in transformers' order."""
    warpers = LogitsProcessorList()
    if config.do_sample:
        if config.temperature != 1.0:
            warpers.append(TemperatureLogitsWarper(float(config.temperature)))
        if config.top_k:
            warpers.append(TopKLogitsWarper(int(config.top_k)))
        if config.top_p is not None and config.top_p < 1.0:
            warpers.append(TopPLogitsWarper(float(config.top_p)))
    return warpers


def _chosen(scores: torch.Tensor, *, sample: bool) -> torch.Tensor:
    """Return the next token of each prompt, shape (B,)."""
    if not sample:
        return scores.argmax(-1)
    return torch.multinomial(scores.softmax(-1), 1)[:, 0]


def plausible(scores: torch.Tensor, reference: torch.Tensor, share: float) -> torch.Tensor:
    """Return scores without the tokens that are implausible by a reference.

    Args:
        scores: Shape (B, V).
        reference: Logits or log probabilities that decide, shape (B, V).
        share: A token is kept if it has at least this share of the likeliest one's probability
            (the adaptive plausibility constraint of contrastive decoding); 0 keeps all.
    """
    if share == 0:
        return scores
    cutoff = reference.amax(-1, keepdim=True) + torch.tensor(share).log()
    return scores.masked_fill(reference < cutoff, -torch.inf)
