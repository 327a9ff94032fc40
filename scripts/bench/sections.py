"""What `costs.py` measures, section by section, and at which sizes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import torch

from models.base import VLM
from scripts.bench import counting, released
from scripts.bench.counting import counting_arms
from scripts.bench.detection import detection_arms
from scripts.bench.evaluation import EvalShape, chair_arms, pope_arms
from scripts.bench.fresh import in_fresh_process
from scripts.bench.methods import MethodShape, measure_methods
from scripts.bench.model import MIB, long_arms, model_arms, now
from scripts.bench.observing import ObserveShape, measure_observing
from scripts.bench.released import WAYS, LayerShape, make_layer
from scripts.bench.rows import Arm, Row, compared, interleave
from scripts.bench.vlm import eah_config

SLOW_REPEATS: Final = 3
DEEP_REPEATS: Final = 5  # on a CPU
POPE_PAIRS: Final = (
    ("baseline", "baseline, no reuse"),
    ("EAH", "EAH, no reuse"),
    ("EAH", "released way"),
    ("EAH, no reuse", "baseline, no reuse"),
)
Result = tuple[list[Row], list[str]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured in each section.

    Attributes:
        layer, memory: Layers to time, and to take memory of.
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


def time_layer(sizes: Sizes, device: torch.device, repeats: int) -> Result:
    """Time one layer's attention at prefill: plain, EAH, released."""
    shape = sizes.layer
    layer = make_layer(shape, device)

    @torch.inference_mode()
    def run(way: str) -> dict[str, float]:
        start = now(device)
        WAYS[way](layer, shape)
        return {"time, ms": 1000 * (now(device) - start)}

    return interleave(_title(shape), {way: partial(run, way) for way in WAYS}, repeats), []


def measure_memory(sizes: Sizes, device: torch.device, repeats: int) -> Result:
    """Measure a layer's peak memory over its inputs and output."""
    on_gpu = device.type == "cuda"

    def run(way: str) -> dict[str, float]:
        if on_gpu:
            return {"extra memory, MiB": _extra_on_gpu(device, way, sizes.memory) / MIB}
        return {"extra memory, MiB": in_fresh_process(released, way, *sizes.memory.words) / MIB}

    arms = {way: partial(run, way) for way in WAYS}
    rows = interleave(_title(sizes.memory), arms, _few(repeats, device), warm_up=0)
    return [replace(row, ratios=()) for row in rows], []  # plain attention needs next to nothing


def time_counting(sizes: Sizes, device: torch.device, repeats: int) -> Result:
    """Time counting over prompt lengths, and on a CPU take its memory."""
    title = f"counting, H {sizes.counting_heads}, all but {counting.TEXT} tokens image"
    arms = counting_arms(sizes.counting_heads, device)
    rows = interleave(title, arms, _few(repeats, device))
    if device.type == "cpu":

        def memory(tokens: int) -> dict[str, float]:
            shape = LayerShape(heads=sizes.counting_heads, tokens=tokens)
            return {"extra memory, MiB": in_fresh_process(counting, *shape.words) / MIB}

        measured: dict[str, Arm] = {
            f"S {tokens}": partial(memory, tokens) for tokens in counting.TOKENS
        }
        rows += interleave(title, measured, 1, warm_up=0)
    return rows, []


def time_detection(sizes: Sizes, device: torch.device, repeats: int) -> Result:
    """Time finding the image tokens of a prompt, beside one of the layers that it runs through."""
    arms = detection_arms(sizes.layer, device)
    title = f"image tokens of {sizes.layer.tokens}, width {sizes.layer.heads * sizes.layer.size}"
    return interleave(title, arms, repeats), []


def time_methods(sizes: Sizes, device: torch.device, repeats: int) -> Result:
    """Time every decoding method, on a LLaVA of 32 layers of its own."""
    return measure_methods(sizes.methods, device, _some(repeats, device))


def time_observing(sizes: Sizes, device: torch.device, repeats: int) -> Result:
    """Time a prefill in which all layers are observed, on a LLaVA of 32 layers of its own."""
    return measure_observing(sizes.observe, device, _some(repeats, device))


def time_model(sizes: Sizes, vlm: VLM, name: str, repeats: int) -> Result:
    """Time prefill and decoding of a model, per batch size."""
    rows: list[Row] = []
    for batch in sizes.batches:
        arms = model_arms(vlm, eah_config(name), batch=batch, new_tokens=sizes.new_tokens)
        rows += interleave(f"{name}, batch {batch}", arms, _few(repeats, vlm.device))
    return rows, []


def time_long_prompts(sizes: Sizes, vlm: VLM, name: str, repeats: int) -> Result:
    """Time a prefill of long prompts; inf is out of memory."""
    batch, length = sizes.long
    arms = long_arms(vlm, eah_config(name), batch=batch, length=length)
    rows = interleave(f"{name}, batch {batch}, S {length}", arms, _few(repeats, vlm.device))
    return rows, []


def run_pope(sizes: Sizes, vlm: VLM, name: str, repeats: int) -> Result:
    """Run POPE with six questions per picture."""
    shape = sizes.evaluation
    title = f"{name}, POPE, {shape.pictures} pictures of six questions, batch {shape.batch}"
    with tempfile.TemporaryDirectory() as folder:
        arms = pope_arms(vlm, eah_config(name), shape, Path(folder))
        rows = interleave(title, arms, _few(repeats, vlm.device))
    return rows, compared(rows, POPE_PAIRS)


def run_chair(sizes: Sizes, vlm: VLM, name: str, repeats: int) -> Result:
    """Describe pictures."""
    shape = sizes.evaluation
    title = f"{name}, CHAIR, {shape.pictures} captions of {shape.caption} tokens"
    with tempfile.TemporaryDirectory() as folder:
        arms = chair_arms(vlm, eah_config(name), shape, Path(folder))
        return interleave(title, arms, _few(repeats, vlm.device)), []


def _some(repeats: int, device: torch.device) -> int:
    """Return the rounds of a section of 32 layers."""
    return repeats if device.type == "cuda" else min(repeats, DEEP_REPEATS)


def _few(repeats: int, device: torch.device) -> int:
    """Return the rounds of a section that takes long on a CPU."""
    return repeats if device.type == "cuda" else min(repeats, SLOW_REPEATS)


def _title(shape: LayerShape) -> str:
    return f"layer, H {shape.heads}, S {shape.tokens}, D {shape.size}"


@torch.inference_mode()
def _extra_on_gpu(device: torch.device, way: str, shape: LayerShape) -> float:
    layer = make_layer(shape, device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    output = WAYS[way](layer, shape)
    return torch.cuda.max_memory_allocated(device) - before - output.nbytes


OWN_SECTIONS: Final = {  # that build what they measure
    "layer": time_layer,
    "memory": measure_memory,
    "counting": time_counting,
    "detection": time_detection,
    "methods": time_methods,
    "observe": time_observing,
}
MODEL_SECTIONS: Final = {
    "model": time_model,
    "pope": run_pope,
    "chair": run_chair,
    "long": time_long_prompts,
}
