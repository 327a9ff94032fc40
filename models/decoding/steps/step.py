"""One decode step of a model on fixed buffers: as it is, compiled, or captured as a CUDA graph.

Axes: R batch rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from eah.find import attention_modules
from models.decoding.own_attention import replaced
from models.decoding.steps.buffers import Buffers

WARM_UPS: Final = 2  # libraries and compilers make their workspaces before a capture


class DecodeStep:
    """Runs one token per row.

    Attributes:
        buffers: What it reads and writes.
        is_checked: Whether its scores were compared with the model's own.
    """

    def __init__(self, model: Any, buffers: Buffers, *, compiles: bool) -> None:
        """Take a model and its buffers.

        Args:
            model: What `plain_copy` made of the language model.
            buffers: Of a layout.
            compiles: Whether torch.compile makes the step; not where rows share prefixes, which
                functions of ours attend to.
        """
        self.buffers, self.is_checked = buffers, False
        self._model = model
        modules = attention_modules(model)
        self._behind_prefix = [modules[layer] for layer in buffers.before.layers]
        self._forward = self._plain_forward
        if compiles and not self._behind_prefix:
            self._forward = torch.compile(self._plain_forward, fullgraph=True, dynamic=False)
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

    def run(self, token: torch.Tensor) -> torch.Tensor:
        """Return the scores behind a token, (R, 1, V); captured ones hold until the next step.

        Args:
            token: Shape (R, 1).
        """
        self.buffers.token.copy_(token)
        if self._graph is None:
            with self._attending():
                return self._forward()
        self._graph.replay()
        assert self._scores is not None, "a captured step has its output"
        return self._scores

    def capture(self) -> None:
        """Capture the step as a CUDA graph; the buffers' tokens stay what they were."""
        buffers = self.buffers
        before = [part.clone() for part in buffers.state()]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(buffers.token.device), self._attending(), _uncached_autocast():
            here = torch.cuda.current_stream()
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's has no types
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(WARM_UPS):
                    self._forward()
                    _put_back(buffers, before)
            here.wait_stream(aside)
            with torch.cuda.graph(graph):
                self._scores = self._forward()
        _put_back(buffers, before)
        self._graph = graph

    @contextmanager
    def _attending(self) -> Iterator[None]:
        """In a `with` block, let layers behind shared prefixes attend to both."""
        with replaced(self._behind_prefix, self.buffers.before.attend):
            yield


def _put_back(buffers: Buffers, before: list[torch.Tensor]) -> None:
    for part, value in zip(buffers.state(), before, strict=True):
        part.copy_(value)


@contextmanager
def _uncached_autocast() -> Iterator[None]:
    """In a `with` block, cast weights anew: a graph must not read casts that autocast frees."""
    was = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(was)
