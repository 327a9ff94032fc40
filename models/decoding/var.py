"""VAR: visual attention redistribution (arXiv 2503.03321).

The EAH paper's "Vissink". Sink tokens attract attention regardless of their content: a few
dimensions of their hidden state are very large. In heads that also attend to other image tokens,
part of all sinks' attention moves to those tokens. Follows the authors' `src/logic/logic.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from models.decoding.attention_method import AttentionMethod
from models.decoding.attention_replacement import AttentionCall
from models.decoding.attention_rows import ChangedRows, Rows
from models.decoding.attention_sinks import EPSILON, check_sinks, find_sinks
from models.decoding.base import MethodError, check_layer_setting, check_number
from models.decoding.token_marks import first_prompt, forget_first, marked_keys, watch_inputs
from models.prompt_images import PromptImages


@dataclass(frozen=True, slots=True)
class Var(AttentionMethod):
    """VAR with its settings.

    Attributes:
        sink_dims: Dimensions of the hidden state in which sinks are large; a property of the
            language model, empty if unknown.
        tau: Value above which a token is a sink, in units of its hidden state's root mean square.
        rho: Sinks get at most this share of a changed head's attention on the image.
        summ: A changed head has at least this much attention on the image.
        p: Share of their attention that sinks keep; 1 for no change.
        start_layer: First changed layer, counted from 0.
        released: Whether every prompt after the first is changed at the positions of the first
            prompt's sinks, and in all rows, as in the authors' code, whose state is never cleared.
    """

    title = "VAR"
    layer_setting = "start_layer"
    sink_dims: tuple[int, ...] = ()
    tau: float = 20.0
    rho: float = 0.5
    summ: float = 0.2
    p: float = 0.6
    start_layer: int = 2
    released: bool = False

    def __post_init__(self) -> None:
        """Check the numbers once."""
        check_layer_setting(self.sink_dims, name="sink_dims")
        for name in ("tau", "start_layer"):
            check_number(name, getattr(self, name), low=0)
        for name in ("rho", "summ", "p"):
            check_number(name, getattr(self, name), low=0, high=1)

    @property
    def is_off(self) -> bool:
        """Whether the settings change nothing."""
        return self.p == 1

    @property
    def rows(self) -> ChangedRows:
        """The rows after the image, or all."""
        return ChangedRows.ALL if self.released else ChangedRows.AFTER_IMAGE

    @property
    def depends_on_history(self) -> bool:
        """Whether an answer depends on the first prompt of the process."""
        return self.released

    def forget(self, model: nn.Module) -> None:
        """Forget the first prompt of the process."""
        forget_first(model, self)

    def changed_layers(self, layers: Sequence[int], shared: Sequence[int]) -> Sequence[int]:
        """Return the layers from `start_layer` on."""
        return [layer for layer in layers if layer >= self.start_layer]

    def check_layers(self, modules: Mapping[int, Any]) -> None:
        """Refuse unknown or impossible sink dimensions; errors as in `check_sinks`."""
        check_sinks(self.sink_dims, self.tau, modules)

    @contextmanager
    def watch(self, model: nn.Module, layers: Sequence[int]) -> Iterator[None]:
        """Find the sinks among the inputs of layers, in a `with` block."""
        with watch_inputs(model, layers, partial(find_sinks, dims=self.sink_dims, tau=self.tau)):
            yield

    def rows_of(self, call: AttentionCall, images: PromptImages) -> ChangedRows:
        """Store which tokens are sinks, and return the rows to change in a call."""
        images.store_marks(call.layer, call.offset)
        if self.released and len(images.mask) > 1:
            raise MethodError(
                f"VAR: released=true supports one question at a time, but the batch has "
                f"{len(images.mask)}; use batch size 1"
            )
        is_first = not self.released or first_prompt(call, self, images) is images
        return ChangedRows.AFTER_IMAGE if is_first else ChangedRows.ALL

    def edit(self, rows: Rows) -> torch.Tensor:
        """Return rows of a layer with attention moved from sinks to others, (R, n, H, D)."""
        call, images = rows.call, rows.images
        images = first_prompt(call, self, images) if self.released else images
        sinks = marked_keys(call, images, self.title)[:, None, None]  # (R, 1, 1, K)
        image = rows.image[:, None, None]  # (R, 1, 1, K)
        weights = rows.weights(rows.scores())  # (R, H, n, K)
        visual, others = (weights * (image & part) for part in (sinks, ~sinks))
        on_image, on_others = (weights * image).sum(-1), others.sum(-1)  # (R, H, n)
        portion = visual.sum(-1) / (on_image + EPSILON * image.sum(-1))
        chosen = (portion <= self.rho) & (on_image >= self.summ) & (on_others > 0)
        chosen &= (image & sinks).any(-1)
        freed = (1 - self.p) * (weights * sinks).sum(-1)
        share = others * (freed / on_others.clamp(min=torch.finfo(others.dtype).tiny))[..., None]
        moved = torch.where(sinks, self.p * weights, weights + share)
        return rows.output(torch.where(chosen[..., None], moved, weights))
