"""A target layer's attention, in which all heads get one head's map.

Axes: B batch, H query heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from eah.drop_in.passes import Pass, PatchedModel, _current
from eah.errors import EAHStateError, UnsupportedModelError
from eah.method import NO_HEAD, Choice, choose, column_sums, share_head
from eah.prompt import Prompt
from eah.settings import DropInSettings
from eah.visibility import Visibility

SOFTMAX: Final = (functional.softmax, torch.softmax, torch.Tensor.softmax)


class SharingAttention:
    """First base class of a target layer's attention: shares one head's map."""

    eah_state: PatchedModel
    eah_layer: int

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the original attention; at image prefill, with the densest head's map for all."""
        forward = super().forward  # type: ignore[misc]  # the original's class follows
        active_pass: Pass | None = _current.get()
        is_trained = self.training or self.eah_state.is_trained  # type: ignore[attr-defined]
        if is_trained:
            return forward(hidden_states, *args, **kwargs)
        if active_pass is None or active_pass.state is not self.eah_state:
            if hidden_states.shape[1] > 1:
                raise EAHStateError(
                    f"layer {self.eah_layer} was called outside of the forward of transformers' "
                    "own model class (a class derived from it has its own forward), so the "
                    "prompt's image tokens are not known; set EAH_DISABLE=1"
                )
            return forward(hidden_states, *args, **kwargs)
        prompt = active_pass.prompt
        if prompt.is_decoding or prompt.skipped is not None:
            return forward(hidden_states, *args, **kwargs)
        names = tuple(inspect.signature(forward).parameters)[1:]
        mask = {**dict(zip(names, args)), **kwargs}.get("attention_mask")  # noqa: B905  # Python 3.8
        sharing = HeadSharing(self.eah_state.settings, prompt, hidden_states.dtype, mask)
        with sharing:
            output = forward(hidden_states, *args, **kwargs)
        if sharing.choice is None:
            raise UnsupportedModelError(
                f"EAH saw no softmax and no scaled_dot_product_attention in layer "
                f"{self.eah_layer}: {self._reason_without_map()}, or set EAH_DISABLE=1"
            )
        active_pass.found[self.eah_layer] = sharing.choice
        return output

    def _reason_without_map(self) -> str:
        """Return why there was no map to share, and the remedy."""
        base = type(self).__mro__[2]
        run = base.forward  # type: ignore[attr-defined]  # it is an attention class
        if run.__module__ != base.__module__:
            return (
                f"{base.__name__}.forward was replaced by {run.__module__}.{run.__qualname__}, "
                "which computes attention differently; remove that patch, set other EAH_LAYERS"
            )
        return (
            "its attention kernel can't be shared; load the model with attn_implementation='eager' "
            "or 'sdpa'"
        )


def check_reached(model: Any, active_pass: Pass) -> None:
    """Refuse an image prefill in which a target layer's attention did not run through EAH.

    Raises:
        EAHStateError: Naming the layer and the likely cause.
    """
    if active_pass.prompt.skipped is not None:
        return
    depth = getattr(model.config, "num_hidden_layers", len(model.layers))  # less in an early exit
    for layer in active_pass.state.layers:
        attention = model.layers[layer].self_attn
        if layer in active_pass.found or layer >= depth or attention.training:
            continue
        own = vars(attention).get("forward")
        cause = f"its decoder layer ({type(model.layers[layer]).__name__}) did not call it"
        if not isinstance(attention, SharingAttention):
            cause = f"it was replaced by a {type(attention).__name__}"
        elif own is not None:
            name = getattr(own, "__qualname__", type(own).__name__)
            cause = f"its forward was replaced by {getattr(own, '__module__', '?')}.{name}"
        raise EAHStateError(
            f"the attention of layer {layer} did not run through EAH: {cause}; remove that "
            "change, set EAH_LAYERS to layers without it, or set EAH_DISABLE=1"
        )


class HeadSharing(TorchFunctionMode):
    """While active, shares the densest head's map in one attention call.

    With `scaled_dot_product_attention`, the heads get that head's query and key; with a softmax
    over scores, they get its output.
    """

    def __init__(
        self, settings: DropInSettings, prompt: Prompt, dtype: torch.dtype, mask: Any
    ) -> None:
        """Take the settings, the prompt, the dtype that the model computes in, and its mask."""
        super().__init__()
        self.config, self.prompt, self.dtype, self.mask = settings.config, prompt, dtype, mask
        self.choice: Choice | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Intercept these two functions; all others run unchanged."""
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        output = func(*args, **kwargs)
        scores = args[0] if args else kwargs.get("input")
        if func in SOFTMAX and isinstance(scores, torch.Tensor) and scores.dim() == 4:
            return self._share_weights(output)
        return output

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Run the kernel with one head's query and key."""

        def attend(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            return functional.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, **kwargs
            )

        scale = kwargs.get("scale")
        columns = column_sums(
            query,
            key,
            self._visibility(attn_mask, is_causal, query.shape[2], key.shape[2]),
            scaling=query.shape[-1] ** -0.5 if scale is None else scale,
            rounding=query.dtype if self.config.rule == "released_code" else None,
        )
        choice = choose(columns, self.prompt.columns(key.shape[2], key.device), self.config)
        self.choice = choice
        shared = attend(*share_head(query, key, choice.head))  # (B, H, Q, D)
        receives = self._receiving_rows(choice)
        return shared if receives is None else torch.where(receives, shared, attend(query, key))

    def _share_weights(self, weights: torch.Tensor) -> torch.Tensor:
        """Return softmax output, (B, H, Q, K), in which heads have the densest head's map."""
        keys = weights.shape[3]
        mask = self.mask[..., :keys] if isinstance(self.mask, torch.Tensor) else None

        def rows(start: int, stop: int, keys: int, _: torch.Tensor, heads: slice) -> torch.Tensor:
            # A copy: summing overwrites the rows, and the model still uses these weights.
            return weights[:, heads, start:stop, :keys].detach().to(torch.float32, copy=True)

        columns = column_sums(
            weights,
            weights.transpose(2, 3),
            self._visibility(mask, False, weights.shape[2], keys),
            scaling=1.0,
            rounding=self.dtype if self.config.rule == "released_code" else None,
            rows=rows,
        )
        choice = choose(columns, self.prompt.columns(keys, weights.device), self.config)
        self.choice = choice
        row = torch.arange(len(weights), device=weights.device)
        shared = weights[row, choice.head.clamp(min=0)][:, None]  # (B, 1, Q, K)
        found = (choice.head != NO_HEAD)[:, None, None, None]
        receives = self._receiving_rows(choice)
        return torch.where(found if receives is None else found & receives, shared, weights)

    def _receiving_rows(self, choice: Choice) -> torch.Tensor | None:
        """Return which rows of which heads get the map, (B, H or 1, Q or 1, 1); None for all."""
        answer = self.prompt.answer_rows(choice.head.device)
        receives = None if answer is None else ~answer[:, None, :, None]
        if choice.receivers is None:
            return receives
        heads = choice.receivers[:, :, None, None]
        return heads if receives is None else receives & heads

    def _visibility(
        self, mask: torch.Tensor | None, is_causal: bool, rows: int, keys: int
    ) -> Visibility:
        """Return the visible keys per query row, from the kernel's mask.

        Raises:
            UnsupportedModelError: If each head has a separate mask.
        """
        if mask is not None and (mask.dim() != 4 or mask.shape[1] != 1):
            raise UnsupportedModelError(
                f"EAH: the target layer's mask has shape {tuple(mask.shape)}, but one mask for all "
                "heads is needed, (B, 1, Q, K)"
            )
        if mask is None and is_causal and self.prompt.cached:
            raise UnsupportedModelError(
                f"EAH: the kernel gets no mask for a pass after {self.prompt.cached} cached "
                "tokens, so the visible keys are not known; pass the whole prompt at once"
            )
        if mask is None and not is_causal:
            mask = torch.ones(1, 1, 1, 1, dtype=torch.bool).expand(1, 1, rows, keys)
        if mask is not None:
            self.prompt.check_answer(mask)
        return self.prompt.visibility(mask)
