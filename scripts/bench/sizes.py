"""The sizes that `costs.py` measures: on a GPU those of the papers, on a CPU smaller ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from scripts.bench.evaluation import EvalShape
from scripts.bench.methods import MethodShape
from scripts.bench.observing import ObserveShape
from scripts.bench.released import LayerShape


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of each section.

    Attributes:
        layer, memory: Layers whose time and memory are measured.
        counting_heads: Heads of the layer whose sinks are counted.
        batches, new_tokens: Of `model`.
        evaluation: Of `pope` and `chair`.
        long: Batch and length of `long`.
        methods: Model and questions of `methods`.
        observe: Model and prompt of `observe`.
    """

    layer: LayerShape
    memory: LayerShape
    counting_heads: int
    batches: tuple[int, ...]
    new_tokens: int
    evaluation: EvalShape
    long: tuple[int, int]
    methods: MethodShape
    observe: ObserveShape


GPU: Final = Sizes(
    LayerShape(),
    LayerShape(tokens=4096),
    32,
    (1, 8),
    64,
    EvalShape(pictures=32, batch=96, caption=512),
    (4, 8192),
    MethodShape(),
    ObserveShape(),
)
CPU: Final = replace(
    GPU,
    counting_heads=4,
    batches=(1, 2),
    new_tokens=8,
    evaluation=EvalShape(),
    long=(1, 2048),
    methods=MethodShape(width=256),
    observe=ObserveShape(width=256),
)
TINY: Final = Sizes(
    LayerShape(heads=2, size=16),
    LayerShape(heads=2, size=16),
    1,
    (1,),
    2,
    EvalShape(pictures=1, batch=6, answer=2, caption=2),
    (1, 700),
    MethodShape(width=64, side=4, caption=2, answer=2, beams=2),
    ObserveShape(width=64, side=4),
)
