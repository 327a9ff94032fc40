"""One decode step of a model on fixed buffers: plain, compiled, or captured as a CUDA graph.

Axes: R batch rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import torch

from eah.find import attention_modules
from models.decoding.attention_replacement import replace_attention
from models.decoding.steps.buffers import Buffers
from models.errors import ModelError

MOST_LAYOUTS: Final = 256
WARM_UPS: Final = 2  # libraries and compilers allocate their workspaces before a capture


class DecodeStep:
    """Runs one token per row.

    Attributes:
        buffers: The buffers that it reads and writes.
        is_checked: Whether its scores were compared with the model's own.
    """

    def __init__(self, model: Any, buffers: Buffers, *, compiles: bool) -> None:
        """Store a model and its buffers.

        Args:
            model: The language model's copy from `copy_plain`.
            buffers: Its buffers.
            compiles: Whether torch.compile makes the step; ignored with cached prefixes, whose
                attention is our own code.
        """
        self.buffers, self.is_checked = buffers, False
        self._model = model
        modules = attention_modules(model)
        self._after_prefix = [modules[layer] for layer in buffers.before.layers]
        self._forward = self._plain_forward
        if compiles and not self._after_prefix:
            self._made = torch.compile(self._plain_forward, fullgraph=True, dynamic=False)
            self._forward = self._compiled_forward
        self._graph: torch.cuda.CUDAGraph | None = None
        self._scores: torch.Tensor | None = None

    @property
    def is_captured(self) -> bool:
        """Whether running it replays a CUDA graph."""
        return self._graph is not None

    def _plain_forward(self) -> torch.Tensor:
        """Return the next token's scores, (R, 1, V), of the token in the buffers."""
        buffers = self.buffers
        buffers.mask.index_fill_(3, buffers.slot, buffers.shown)
        output = self._model.forward(
            input_ids=buffers.token,
            position_ids=buffers.position,
            attention_mask=buffers.mask,
            past_key_values=buffers.cache,
            use_cache=True,
        )
        buffers.advance()
        scores: torch.Tensor = output.logits
        return scores

    def _compiled_forward(self) -> torch.Tensor:
        # Each layout is compiled separately; by default torch gives up at the ninth.
        with torch._dynamo.config.patch(recompile_limit=MOST_LAYOUTS):
            return self._made()

    def run(self, token: torch.Tensor) -> torch.Tensor:
        """Return the scores after a token, (R, 1, V); captured ones are valid until the next step.

        Args:
            token: Shape (R, 1).
        """
        self.buffers.token.copy_(token)
        if self._graph is None:
            with self._attend_to_prefixes():
                return self._forward()
        self._graph.replay()
        assert self._scores is not None, "a captured step has its output"
        return self._scores

    def capture(self) -> None:
        """Capture the step as a CUDA graph; slots, positions and mask stay unchanged.

        Raises:
            ModelError: If the capture fails halfway, which makes the process unusable.
            RuntimeError: If the step can't be captured: it waits for the GPU, or can't be compiled.
        """
        buffers = self.buffers
        before = [part.clone() for part in buffers.state()]
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(buffers.token.device),
            self._attend_to_prefixes(),
            _disable_autocast_cache(),
        ):
            here = torch.cuda.current_stream()
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's has no types
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for at in range(WARM_UPS):
                    with _forbid_waiting() if at else nullcontext():
                        self._forward()
                    _restore(buffers, before)
            here.wait_stream(aside)
            try:
                with torch.cuda.graph(graph):
                    self._scores = self._forward()
            except Exception as error:
                torch.cuda.set_stream(here)
                # From here on torch's random numbers may come from the capture.
                raise ModelError(
                    f"a decode step of {type(self._model).__name__} can't be captured as a CUDA "
                    f"graph ({str(error).splitlines()[0]:.200}); pass --compile never"
                ) from error
        _restore(buffers, before)
        self._graph = graph

    @contextmanager
    def _attend_to_prefixes(self) -> Iterator[None]:
        """In a `with` block, let layers attend to cached prefixes and to the keys after them."""
        with replace_attention(self._after_prefix, self.buffers.before.attend):
            yield


@contextmanager
def _forbid_waiting() -> Iterator[None]:
    """In a `with` block, raise an error if code waits for the GPU, which breaks a capture."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _restore(buffers: Buffers, before: list[torch.Tensor]) -> None:
    for part, value in zip(buffers.state(), before, strict=True):
        part.copy_(value)


@contextmanager
def _disable_autocast_cache() -> Iterator[None]:
    """In a `with` block, cast weights again: a graph must not read casts that autocast frees."""
    was = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(was)
