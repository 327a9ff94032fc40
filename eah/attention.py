"""The attention function that target layers call: share the densest head, then the model's kernel.

transformers lets a config name its attention function (`AttentionInterface`). A target layer's
attention module gets a copy of its config that names ours; every other layer, the masks and the
kernel itself stay what they were.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from eah.errors import EAHStateError, UnsupportedModelError
from eah.modeling_llama_eah import (
    ColumnSums,
    HeadChoice,
    Visibility,
    choose_head,
    share_head,
)
from eah.session import Prompt, Session
from eah.sink_kernel import image_sums

ATTENTION_NAME: Final = "eah"
STATE: Final = "_eah"

# Scores that these arguments change are not softmax(Q K^T * scale + mask), which is what we count.
UNSUPPORTED_ARGUMENTS: Final = ("softcap", "s_aux", "position_bias", "head_mask", "cache")


@dataclass(slots=True)
class LayerState:
    """What a patched attention module carries.

    Attributes:
        session: The enabled model's session.
        config: The config that the module had, whose `_attn_implementation` names the kernel.
    """

    session: Session
    config: PretrainedConfig

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a pickled model run in a process where EAH was never enabled."""
        return _restored, (self.session, self.config)


def register() -> None:
    """Make our attention function known to transformers, under the name that configs use."""
    AttentionInterface.register(ATTENTION_NAME, eah_attention)


def _restored(session: Session, config: PretrainedConfig) -> LayerState:
    register()
    return LayerState(session, config)


def eah_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Run a target layer's attention, at image prefill with the densest head's map for all heads.

    Args:
        module: The attention module.
        query: Shape (B, H, Q, D).
        key: Shape (B, N, K, D), cached keys included.
        value: Shape (B, N, K, D).
        attention_mask: What the model made for its own kernel.
        scaling: Factor on the scores; D ** -0.5 if None.
        kwargs: Passed on to the kernel.
    Returns:
        What the kernel returns.
    Raises:
        EAHStateError: At a prefill whose image tokens are not known.
        UnsupportedModelError: If the layer's attention is not plain softmax attention.
    """
    state: LayerState = getattr(module, STATE)
    session = state.session
    layer = int(module.layer_idx)  # type: ignore[arg-type]  # nn.Module types attributes as modules
    session.reached.add(layer)
    if query.shape[2] > 1:
        prompt = _known_prompt(session, layer)
        if prompt.has_image:
            _check_arguments(layer, attention_mask, kwargs)
            _check_cache(layer, prompt, key.shape[2])
            choice = _choice(
                session,
                layer,
                query,
                key,
                _visibility(prompt, attention_mask, kwargs.get("sliding_window")),
                _columns(prompt.image, key.shape[2], query.device),
                scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
            )
            session.choices[layer] = choice
            query, key = share_head(query, key, choice.head)
    kernel = _kernel(module, state)
    with _original_config(module, state):
        output: tuple[torch.Tensor, torch.Tensor | None] = kernel(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    return output


def _choice(
    session: Session,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    visibility: Visibility,
    image: torch.Tensor,
    *,
    scaling: float,
) -> HeadChoice:
    """Find the densest head of whole prompts, of which the prefix may be cached."""
    rule = session.config.rule
    rounding = query.dtype if rule.rounding == "query-dtype" else None

    def count(query: torch.Tensor, visibility: Visibility) -> ColumnSums:
        return image_sums(query, key, visibility, scaling=scaling, image=image, rounding=rounding)

    if session.prefix is None:
        sums = count(query, visibility)
    else:
        sums = session.prefix.column_sums(layer, query, visibility, count)
    return choose_head(sums, image, rule)


def _known_prompt(session: Session, layer: int) -> Prompt:
    """Return the forward pass under way, whose image tokens are known."""
    prompt = session.prompt
    if prompt is None or prompt.image is None:
        raise EAHStateError(
            f"EAH in layer {layer} met a prompt whose image tokens it does not know "
            "(embeddings, or a model without an image token id); "
            "run it inside `with eah.image_tokens(model, span_or_mask)`, or disable EAH for it"
        )
    return prompt


def _check_arguments(layer: int, attention_mask: Any, kwargs: dict[str, Any]) -> None:
    """Refuse what would make the counted map another one than the kernel's."""
    for name in UNSUPPORTED_ARGUMENTS:
        if kwargs.get(name) is not None:
            raise UnsupportedModelError(
                f"layer {layer} passes {name!r} to its attention kernel; EAH counts plain softmax "
                "attention only: choose other layers or another model"
            )
    is_4d = isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 4
    if is_4d and attention_mask.shape[1] != 1:
        raise UnsupportedModelError(
            f"layer {layer} has a mask of its own for each of {attention_mask.shape[1]} heads; "
            "one head's map can't be given to the others"
        )


def _check_cache(layer: int, prompt: Prompt, keys: int) -> None:
    """Refuse a cache that has dropped tokens: keys are then no longer counted from the start."""
    if prompt.cached + prompt.queries > keys:
        raise UnsupportedModelError(
            f"layer {layer} has {keys} keys for {prompt.cached + prompt.queries} tokens (a sliding "
            "window's cache drops the oldest); pass the whole prompt at once, without a cache"
        )


def _visibility(prompt: Prompt, mask: Any, window: int | None) -> Visibility:
    """Tell which keys are seen, from the mask that the model made for its kernel."""
    if mask is None:
        # sdpa and flash attention get no mask where nothing is padded.
        return Visibility(prompt.cached, window=window)
    if isinstance(mask, torch.Tensor) and mask.dim() == 4:
        return Visibility(prompt.cached, mask=mask, valid=prompt.valid)
    if isinstance(mask, torch.Tensor):
        return Visibility(prompt.cached, valid=mask.bool(), window=window)
    return Visibility(prompt.cached, valid=prompt.valid, window=window)  # flex attention's blocks


def _columns(image: torch.Tensor | None, keys: int, device: torch.device) -> torch.Tensor:
    """Return the image columns for keys that may be more than the tokens (static cache)."""
    assert image is not None  # _known_prompt has seen to it
    columns = torch.zeros(image.shape[0], keys, dtype=torch.bool, device=device)
    columns[:, : image.shape[1]] = image.to(device)
    return columns


def _kernel(module: nn.Module, state: LayerState) -> Callable[..., Any]:
    """Return the attention function that the model would have used."""
    name = state.config._attn_implementation
    if name != "eager":
        function: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS[str(name)]
        return function
    return eager_function(type(module))


def eager_function(attention: type[nn.Module]) -> Callable[..., Any]:
    """Return the eager attention function of the file that defines an attention class.

    Raises:
        UnsupportedModelError: If that file has none.
    """
    for cls in attention.__mro__:
        names = vars(sys.modules[cls.__module__])
        if "ALL_ATTENTION_FUNCTIONS" in names and "eager_attention_forward" in names:
            function: Callable[..., Any] = names["eager_attention_forward"]
            return function
    raise UnsupportedModelError(
        f"{attention.__name__} does not choose its kernel through AttentionInterface; "
        "EAH supports decoders that do, as LLaMA's does"
    )


@contextmanager
def _original_config(module: nn.Module, state: LayerState) -> Iterator[None]:
    """Give the module its own config back while the kernel runs: flash attention reads it."""
    ours = module.config
    module.config = state.config
    try:
        yield
    finally:
        module.config = ours
