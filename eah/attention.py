"""The attention function of patched layers: find the densest head, share its map, run the kernel.

Other layers, the masks and the kernel itself are unchanged.

Axes: B batch, H query heads, N key/value heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.modeling_utils import AttentionInterface

from eah.errors import EAHError, EAHStateError
from eah.kernel_mask import check_arguments, kernel_visibility
from eah.kernels import run_kernel
from eah.method import Columns, share_map
from eah.observation import Observation
from eah.operators import choose_head, image_sums, share_head
from eah.prompt_reader import UNKNOWN_IMAGE
from eah.state import STATE, Finding, Pass, Session, current_pass
from eah.user_functions import check_output, run_rule
from eah.visibility import Visibility

ATTENTION_NAME: Final = "eah"


@dataclass(slots=True)
class LayerState:
    """State of a patched attention module.

    Attributes:
        session: The patched model's session.
        config: The module's original config, whose `_attn_implementation` names the kernel.
    """

    session: Session
    config: PretrainedConfig

    def __reduce__(self) -> tuple[Any, ...]:
        """Make a pickled model work in a process where EAH was never enabled."""
        return _restore_layer_state, (self.session, self.config)


def register() -> None:
    """Register our attention function with transformers, under the name that configs use."""
    AttentionInterface.register(ATTENTION_NAME, eah_attention)


def _restore_layer_state(session: Session, config: PretrainedConfig) -> LayerState:
    register()
    return LayerState(session, config)


class Kernel:
    """The model's own kernel, with all arguments bound except query, key and value."""

    def __init__(self, module: Any, config: Any, mask: Any, kwargs: dict[str, Any]) -> None:
        """Bind what transformers passes to an attention function."""
        self.arguments = module, config, mask, kwargs
        self.runs = 0
        self.weights: Any = None

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return the output, shape (B, Q, H, D), and store the weights if there are any."""
        module, config, mask, kwargs = self.arguments
        output: torch.Tensor
        output, self.weights = run_kernel(module, config, query, key, value, mask, **kwargs)
        self.runs += 1
        return output


def eah_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Run a patched layer's attention; at image prefill, share the densest head's map.

    Args:
        module: The attention module.
        query: Shape (B, H, Q, D).
        key: Shape (B, N, K, D), cached keys included.
        value: Shape (B, N, K, D).
        attention_mask: The mask that the model built for its own kernel.
        scaling: Factor on the scores; D ** -0.5 if None.
        kwargs: Passed on to the kernel.
    Returns:
        What the kernel returns.
    Raises:
        EAHStateError: At a prefill whose image tokens can't be located.
        UnsupportedModelError: If the layer's attention is not plain softmax attention.
    """
    state: LayerState | None = getattr(module, STATE, None)
    if state is None:  # another thread has just unpatched the module
        mask = attention_mask
        return run_kernel(module, module.config, query, key, value, mask, scaling=scaling, **kwargs)  # type: ignore[no-any-return]
    kernel = Kernel(module, state.config, attention_mask, {"scaling": scaling, **kwargs})
    layer = int(module.layer_idx)  # type: ignore[arg-type]  # nn.Module types attributes as modules
    active_pass = _pass_to_count(state.session, layer, query, is_trained=module.training)
    if active_pass is None:
        return kernel(query, key, value), kernel.weights
    prompt = active_pass.prompt
    name = str(state.config._attn_implementation)
    try:
        check_arguments(layer, name, prompt, query, key, attention_mask, kwargs)
        visibility = kernel_visibility(name, module, prompt, query, key, attention_mask, kwargs)
    except EAHError:
        if prompt.is_text():
            return kernel(query, key, value), kernel.weights
        raise
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    image = active_pass.image_columns(key.shape[2], query.device)
    columns = _column_counter(active_pass, layer, query, key, visibility, image, scale)
    for observer, layers in list(state.session.observers.items()):
        if layer in layers:
            observed = active_pass.findings.observed.setdefault(observer, {})
            rounded = columns(query.dtype) if observer.counts_rounded else None
            observed[layer] = Observation(columns(None), rounded, image)
    config = state.session.config
    if config is None or layer not in config.layers:
        return kernel(query, key, value), kernel.weights
    rounding = query.dtype if config.rule == "released_code" else None
    if callable(config.rule):
        config = replace(config, rule=partial(run_rule, config.rule))
        image = image.clone()  # a user's function may write to it
    choice = choose_head(columns(rounding), image, config)
    active_pass.findings.layers[layer] = Finding(choice, image)
    apply = config.apply or partial(share_map, share=share_head)
    output = apply(query, key, value, choice, kernel)
    if config.apply is not None:
        check_output(output, query, value)
    weights = kernel.weights if kernel.runs == 1 else None
    answer = prompt.answer_rows(query.device)
    if answer is not None:  # rows of the answer attend as in decoding
        own = kernel(query, key, value)
        output = torch.where(answer[:, :, None, None], own, output)
        if weights is not None:
            weights = torch.where(answer[:, None, :, None], kernel.weights, weights)
    return output, weights


def _pass_to_count(
    session: Session, layer: int, query: torch.Tensor, *, is_trained: bool
) -> Pass | None:
    """Return the active pass if a layer's sinks are counted in it, else None.

    Raises:
        EAHStateError: If the layer must be counted, but there is no pass with its prompt.
    """
    active_pass = current_pass(session)
    if active_pass is not None:
        active_pass.reached.add(layer)
        if active_pass.is_open:
            raise EAHStateError(f"EAH in layer {layer}: {UNKNOWN_IMAGE}")
        prompt = active_pass.prompt
        is_skipped = prompt.skipped is not None or prompt.is_decoding or is_trained
        return active_pass if session.uses(layer) and not is_skipped else None
    if query.shape[2] > 1 and not is_trained and layer in session.shared_layers:
        raise EAHStateError(
            f"EAH in layer {layer}: {UNKNOWN_IMAGE} (the layer was called outside of the model "
            "that EAH was enabled on)"
        )
    return None


def _column_counter(
    active_pass: Pass,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    visibility: Visibility,
    image: torch.Tensor,
    scaling: float,
) -> Any:
    """Return a function that computes column sums of whole prompts, cached by rounding dtype."""
    made: dict[torch.dtype | None, Columns] = {}

    def columns(rounding: torch.dtype | None) -> Columns:
        rounding = None if rounding == torch.float32 else rounding

        def count(query: torch.Tensor, visibility: Visibility) -> Columns:
            return image_sums(
                query, key, visibility, scaling=scaling, image=image, rounding=rounding
            )

        if rounding not in made:
            prefix = active_pass.prefix  # its keys may be cached
            made[rounding] = (
                count(query, visibility)
                if prefix is None
                else prefix.column_sums(layer, query, visibility, count)
            )
        return made[rounding]

    return columns
