"""Logits of early layers: the last token's hidden states through norm and output layer.

Hooks on the decoder's layers record them. So other tokens take no memory, and models whose
`generate` runs an inner model work as well.

Axes: R batch rows, L early layers, Q tokens of a pass, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

import torch
from torch import nn
from transformers import LogitsProcessor

from eah.errors import UnsupportedModelError
from eah.find import attention_modules
from models.decoding.attention_replacement import in_this_thread
from models.decoding.base import MethodError

NORMS: Final = ("norm", "final_layernorm", "final_layer_norm", "ln_f")
# Relative to the largest logit: rounding of the same product in half precision.
HEAD_TOLERANCE: Final = 0.02
NORMALISED: Final = 1e-3  # log of a sum of probabilities, 0 except for rounding


def decoder_blocks(model: nn.Module) -> dict[int, nn.Module]:
    """Return the decoder layers of a model by index; each contains one attention module."""
    wanted = {id(module): layer for layer, module in attention_modules(model).items()}
    found = {}
    for block in model.modules():
        for child in block.children():
            if id(child) in wanted:
                found[wanted[id(child)]] = block
    return found


class Published(NamedTuple):
    """The early layers that a method's authors published, and for which depth."""

    depth: int  # layers of the model
    layers: range


def select_layers(
    title: str, layers: str | Sequence[int], published: Published, depth: int
) -> list[int]:
    """Return the early layers: the given ones, or the published ones if `layers` is a word.

    Raises:
        MethodError: If a layer is not below the last one, or none is published for the depth.
    """
    chosen = published.layers if isinstance(layers, str) else layers
    if isinstance(layers, str) and depth != published.depth:
        raise MethodError(
            f"{title}'s layers {chosen[0]}..{chosen[-1]} are published for models of "
            f"{published.depth} layers, but this one has {depth}; name others: "
            f"{title.lower()}@layers={5 * depth // 8}-{7 * depth // 8}"
        )
    if not chosen or not all(0 <= layer < depth for layer in chosen):
        raise MethodError(
            f"layers={list(chosen)}, but early layers are 0..{depth - 1}; choose from these"
        )
    return list(chosen)


def decoder_of(model: nn.Module) -> nn.Module:
    """Return the module that owns the list of decoder layers."""
    blocks = set(map(id, decoder_blocks(model).values()))
    lists = {id(m) for m in model.modules() if blocks & set(map(id, m.children()))}
    return next(m for m in model.modules() if lists & set(map(id, m.children())))


class EarlyLayers:
    """The last token's hidden states in some layers, and their logits."""

    def __init__(self, model: Any, method: str) -> None:
        """Find layers, final norm and output layer.

        Raises:
            MethodError: If the model has no known norm or output layer.
        """
        try:
            self._blocks = decoder_blocks(model)
        except UnsupportedModelError as error:
            raise MethodError(f"{method}: {error}") from error
        self._method = method
        decoder = decoder_of(model)
        named = [getattr(decoder, name, None) for name in NORMS]
        norms = [norm for norm in named if isinstance(norm, nn.Module)]
        head = model.get_output_embeddings()
        if len(norms) != 1 or not isinstance(head, nn.Module):
            raise MethodError(
                f"{method} reads early layers with the final norm and the output layer, which were "
                f"not found in {type(model).__name__}; use another method"
            )
        self._norm, self._head = norms[0], head
        self._states: dict[int, torch.Tensor] = {}
        self._last: torch.Tensor | None = None

    @property
    def depth(self) -> int:
        """Number of layers."""
        return max(self._blocks) + 1

    @contextmanager
    def watch(self, layers: Sequence[int]) -> Iterator[None]:
        """Record the inputs of layers in a `with` block of this thread."""
        with ExitStack() as stack:
            for layer in layers:
                see = in_this_thread(partial(self._record_input, layer))
                hook = self._blocks[layer].register_forward_pre_hook(see, with_kwargs=True)
                stack.callback(hook.remove)
            hook = self._norm.register_forward_hook(in_this_thread(self._record_last))
            stack.callback(hook.remove)
            yield

    def logits(self, layers: Sequence[int], final: torch.Tensor) -> torch.Tensor:
        """Return the logits of layers at the last token, shape (L, R, V) float32.

        Args:
            layers: Watched layers.
            final: The model's own logits or log probabilities there, (R, V).
        Raises:
            MethodError: If the model's own logits are not those of the output layer.
        """
        if self._last is None or len(self._last) != len(final):
            raise MethodError(
                f"{self._method} recorded no forward pass for these scores; use the model's own "
                "`generate`"
            )
        own = self._head(self._last).float().to(final.device)
        apart = (own.log_softmax(-1) - final.float().log_softmax(-1)).abs().max()
        if apart > HEAD_TOLERANCE * own.abs().max():
            raise MethodError(
                f"{self._method} reads early layers with the output layer, but this model scales "
                "or caps its logits after it, or `generate` changed them first (by "
                "repetition_penalty, suppress_tokens or similar); use another method, or leave "
                "these settings out"
            )
        device = self._last.device
        states = torch.stack([self._norm(self._states[i].to(device)) for i in layers])
        return self._head(states).float().to(final.device)  # type: ignore[no-any-return]

    def _record_input(self, layer: int, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        states = args[0] if args else kwargs["hidden_states"]  # (R, Q, E)
        self._states[layer] = states[:, -1]

    def _record_last(self, _: nn.Module, __: Any, output: torch.Tensor) -> None:
        if output.dim() == 3:  # not the call in `logits`
            self._last = output[:, -1]


class EarlyScores(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Combines the model's scores with those of early layers.

    Log probabilities, as in beam search, stay normalised.
    """

    def __init__(
        self,
        early: EarlyLayers,
        layers: Sequence[int],
        combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> None:
        """Store the arguments.

        Args:
            early: Records the forward pass that produces the scores.
            layers: Watched layers.
            combine: Returns scores, (R, V), from final ones (R, V) and early logits (L, R, V).
        """
        self._early, self._layers, self._combine = early, layers, combine

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the combined scores, shape (R, V)."""
        found = self._combine(scores, self._early.logits(self._layers, scores))
        total = scores.float().logsumexp(-1, keepdim=True)
        return torch.where(total.abs() < NORMALISED, found.log_softmax(-1), found)
