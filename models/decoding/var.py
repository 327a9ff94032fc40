"""VAR: visual attention redistribution, "See What You Are Told" (arXiv 2503.03321).

The EAH paper's "Vissink". Some tokens draw attention whatever they show: in a few dimensions of the
hidden state they have very large values. Heads that look at other image tokens, too, give a part of
all sinks' attention to those. Follows the authors' `src/logic/logic.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional

from models.decoding.attention_method import AttentionMethod
from models.decoding.attention_rows import Held, Rows
from models.decoding.base import MethodError, checked
from models.decoding.early_layers import decoder_blocks
from models.decoding.own_attention import AttentionCall, in_this_thread
from models.prompt_images import PromptImages, said_images

EPSILON: Final = 1e-6
# Of the released form: the first prompt that a model saw under a method in this process.
_of_process: Final[WeakKeyDictionary[nn.Module, dict[Var, PromptImages]]] = WeakKeyDictionary()
_first: Final[ContextVar[dict[Var, PromptImages]]] = ContextVar("first_prompts")


@dataclass(frozen=True, slots=True)
class Var(AttentionMethod):
    """VAR with its settings.

    Attributes:
        sink_dims: Dimensions of the hidden state in which sinks are large; a property of the
            language model, empty where it is not known.
        tau: Size from which a token is a sink, in units of its hidden state's root mean square.
        rho: Largest share of a head's attention on the image that its sinks have.
        summ: Least attention of a head on the image.
        p: What sinks keep of their attention; 1 leaves them.
        start_layer: First layer that is changed, counted from 0.
        released: Whether every prompt after the first is changed at the places of the first
            prompt's sinks, and in all rows, as in the authors' code, whose state is never cleared.
    """

    title = "VAR"
    sink_dims: tuple[int, ...] = ()
    tau: float = 20.0
    rho: float = 0.5
    summ: float = 0.2
    p: float = 0.6
    start_layer: int = 2
    released: bool = False

    def __post_init__(self) -> None:
        """Check the numbers once."""
        for name in ("tau", "start_layer"):
            checked(name, getattr(self, name), low=0)
        for name in ("rho", "summ", "p"):
            checked(name, getattr(self, name), low=0, high=1)

    @property
    def is_off(self) -> bool:
        """Whether the settings change nothing."""
        return self.p == 1

    @property
    def rows(self) -> Held:
        """The rows behind the image, or all."""
        return Held.ALL if self.released else Held.BEHIND_IMAGE

    @property
    def runs_alone(self) -> bool:
        """Whether the first prompt of the process changes the others."""
        return self.released

    @property
    def keeps_state(self) -> bool:
        """Whether an answer depends on the first prompt of the process."""
        return self.released

    def held_layers(self, layers: Sequence[int], shared: Sequence[int]) -> Sequence[int]:
        """Return the layers from the first one on.

        Raises:
            MethodError: If the model's sink dimensions are not known.
        """
        if not self.sink_dims:
            raise MethodError(
                "VAR needs the dimensions in which sinks of this language model are large, which "
                "its authors published for LLaVA-1.5 7B and 13B; name them: "
                "var@sink_dims=1415+2533"
            )
        return [layer for layer in layers if layer >= self.start_layer]

    @contextmanager
    def watching(self, model: nn.Module, layers: Sequence[int]) -> Iterator[None]:
        """Look at the tokens that go into layers, in a `with` block."""
        blocks = decoder_blocks(model)
        with ExitStack() as stack:
            token = _first.set(_of_process.setdefault(model, {}))
            stack.callback(_first.reset, token)
            for layer in layers:
                see = in_this_thread(partial(self._see, layer))
                hook = blocks[layer].register_forward_pre_hook(see, with_kwargs=True)
                stack.callback(hook.remove)
            yield

    def _see(self, layer: int, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """See which tokens are sinks in a layer's input, (R, Q, E), where a prompt is run."""
        states, images = args[0] if args else kwargs["hidden_states"], said_images()
        if images is not None and states.shape[1] > 1:
            large = states[..., list(self.sink_dims)].float().abs().amax(-1)
            size = states.float().square().mean(-1)
            images.seen[layer] = large * torch.rsqrt(size + EPSILON) > self.tau

    def rows_of(self, call: AttentionCall, images: PromptImages) -> Held:
        """Return the rows that are changed in a call, its sinks noted."""
        images.note(call.layer, call.offset)
        return Held.BEHIND_IMAGE if self._noted_on(images) is images else Held.ALL

    def _noted_on(self, images: PromptImages) -> PromptImages:
        """Return the prompts whose sinks count: these, or the first of the process."""
        return _first.get().setdefault(self, images) if self.released else images

    def edit(self, rows: Rows) -> torch.Tensor:
        """Return rows of a layer with attention given from sinks to others, (R, n, H, D)."""
        images, (batch, keys) = said_images(), rows.image.shape
        assert images is not None, "rows are of prompts whose images are known"
        noted = self._noted_on(images).notes[rows.call.layer].to(rows.image.device)
        noted = images.repeated(noted, batch)
        sinks = functional.pad(noted, (0, max(0, keys - noted.shape[1])))[:, None, None, :keys]
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
