"""What `costs.py` measures, section by section."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import torch

from models.base import VLM
from scripts.bench import counting, released
from scripts.bench.counting import counting_arms
from scripts.bench.decoding import decoding_arms
from scripts.bench.detection import detection_arms
from scripts.bench.evaluation import chair_arms, pope_arms
from scripts.bench.fresh import run_in_fresh_process
from scripts.bench.methods import method_measurements
from scripts.bench.model import MIB, RELEASED, long_arms, map_gib, model_arms, now
from scripts.bench.observing import observing_measurements
from scripts.bench.released import WAYS, LayerShape, make_layer
from scripts.bench.rounds import Arm, Measurement, Measurements
from scripts.bench.rows import compare_arms
from scripts.bench.sizes import Sizes
from scripts.bench.vlm import eah_config
from scripts.check.shapes import true_config

SLOW_REPEATS: Final = 3
DEEP_REPEATS: Final = 5  # on a CPU
POPE_PAIRS: Final = (
    ("baseline", "baseline, no reuse"),
    ("EAH", "EAH, no reuse"),
    ("EAH", "EAH, no steps"),
    ("EAH", "released way"),
    ("EAH, no reuse", "baseline, no reuse"),
)
EXTRA: Final = "extra memory, MiB"
MOST_MAPS_GIB: Final = 8


def time_layer(sizes: Sizes, device: torch.device) -> Measurements:
    """Time one layer's attention at prefill: plain, EAH, released."""
    shape = sizes.layer
    layer = make_layer(shape, device)

    @torch.inference_mode()
    def run(way: str) -> dict[str, float]:
        start = now(device)
        WAYS[way](layer, shape)
        return {"time, ms": 1000 * (now(device) - start)}

    yield Measurement(_title(shape), {way: partial(run, way) for way in WAYS})


def measure_memory(sizes: Sizes, device: torch.device) -> Measurements:
    """Measure a layer's peak memory over its inputs and output."""
    on_gpu = device.type == "cuda"

    def run(way: str) -> dict[str, float]:
        if on_gpu:
            return {EXTRA: _extra_on_gpu(device, way, sizes.memory) / MIB}
        return {EXTRA: run_in_fresh_process(released, way, *sizes.memory.words) / MIB}

    arms = {way: partial(run, way) for way in WAYS}
    # Plain attention needs next to nothing.
    yield Measurement(_title(sizes.memory), arms, _slow(device), warm_up=0, absolute=(EXTRA,))


def time_counting(sizes: Sizes, device: torch.device) -> Measurements:
    """Time counting over prompt lengths, and on a CPU take its memory."""
    title = f"counting, H {sizes.counting_heads}, all but {counting.TEXT} tokens image"
    arms = counting_arms(sizes.counting_heads, device)
    yield Measurement(title, arms, _slow(device), share=0.5 if device.type == "cpu" else 1)
    if device.type == "cpu":

        def memory(tokens: int) -> dict[str, float]:
            shape = LayerShape(heads=sizes.counting_heads, tokens=tokens)
            return {EXTRA: run_in_fresh_process(counting, *shape.words) / MIB}

        measured: dict[str, Arm] = {
            f"S {tokens}": partial(memory, tokens) for tokens in counting.TOKENS
        }
        yield Measurement(title, measured, most=1, warm_up=0)


def time_detection(sizes: Sizes, device: torch.device) -> Measurements:
    """Time finding the image tokens of a prompt, and one of the layers that it runs through."""
    arms = detection_arms(sizes.layer, device)
    title = f"image tokens of {sizes.layer.tokens}, width {sizes.layer.heads * sizes.layer.size}"
    yield Measurement(title, arms)


def time_methods(sizes: Sizes, device: torch.device) -> Measurements:
    """Time every decoding method, on a separate LLaVA of 32 layers."""
    return method_measurements(sizes.methods, device, _deep(device))


def time_observing(sizes: Sizes, device: torch.device) -> Measurements:
    """Time a prefill in which all layers are observed, on a separate LLaVA of 32 layers."""
    return observing_measurements(sizes.observe, device, _deep(device))


def time_model(sizes: Sizes, vlm: VLM, name: str) -> Measurements:
    """Time prefill and decoding of a model, per batch size."""
    for index, batch in enumerate(sizes.batches):
        arms = model_arms(vlm, eah_config(name), batch=batch, new_tokens=sizes.new_tokens)
        share = 1 / (len(sizes.batches) - index)
        yield Measurement(
            f"{_model(vlm, name)}, batch {batch}", arms, _slow(vlm.device), share=share
        )


def time_decoding(sizes: Sizes, vlm: VLM, name: str) -> Measurements:
    """Time a decode step of a model, per batch size."""
    for index, batch in enumerate(sizes.batches):
        arms = decoding_arms(vlm, batch=batch, tokens=sizes.new_tokens)
        share = 1 / (len(sizes.batches) - index)
        title = f"{_model(vlm, name)}, decoding, batch {batch}"
        yield Measurement(title, arms, _slow(vlm.device), share=share)


def time_long_prompts(sizes: Sizes, vlm: VLM, name: str) -> Measurements:
    """Time a prefill of long prompts."""
    batch, length = sizes.long
    arms = long_arms(vlm, eah_config(name), batch=batch, length=length)
    maps = map_gib(vlm, batch=batch, length=length)
    left_out = {}
    if RELEASED in arms and maps > MOST_MAPS_GIB:
        del arms[RELEASED]
        left_out = {RELEASED: f"the attention maps of a layer take {maps:.0f} GiB, and minutes"}
    title = f"{_model(vlm, name)}, batch {batch}, S {length}"
    yield Measurement(title, arms, _slow(vlm.device), left_out=left_out)


def run_pope(sizes: Sizes, vlm: VLM, name: str) -> Measurements:
    """Run POPE with six questions per picture."""
    shape = sizes.evaluation
    asked_about = f"{shape.pictures} pictures of six questions, batch {shape.batch}"
    title = f"{_model(vlm, name)}, POPE, {asked_about}"
    with tempfile.TemporaryDirectory() as folder:
        asked = pope_arms(vlm, eah_config(name), shape, Path(folder))
        lines = partial(compare_arms, pairs=POPE_PAIRS)
        yield Measurement(title, asked.arms, _slow(vlm.device), notes=asked.notes, lines=lines)


def run_chair(sizes: Sizes, vlm: VLM, name: str) -> Measurements:
    """Describe pictures."""
    shape = sizes.evaluation
    title = f"{_model(vlm, name)}, CHAIR, {shape.pictures} captions of {shape.caption} tokens"
    with tempfile.TemporaryDirectory() as folder:
        asked = chair_arms(vlm, eah_config(name), shape, Path(folder))
        yield Measurement(title, asked.arms, _slow(vlm.device), notes=asked.notes)


def _model(vlm: VLM, name: str) -> str:
    """Return a model's name, with its size where that is not the true one."""
    own, true = (
        config.get_text_config(decoder=True) for config in (vlm.model.config, true_config(name))
    )
    size = own.num_hidden_layers, own.hidden_size
    if size == (true.num_hidden_layers, true.hidden_size):
        return name
    return f"{name} of {size[0]} layers and width {size[1]}"


def _deep(device: torch.device) -> int | None:
    """Return the rounds at most of a section of 32 layers."""
    return None if device.type == "cuda" else DEEP_REPEATS


def _slow(device: torch.device) -> int | None:
    """Return the rounds at most of a section that takes long on a CPU."""
    return None if device.type == "cuda" else SLOW_REPEATS


def _title(shape: LayerShape) -> str:
    return f"layer, H {shape.heads}, S {shape.tokens}, D {shape.size}"


@torch.inference_mode()
def _extra_on_gpu(device: torch.device, way: str, shape: LayerShape) -> float:
    layer = make_layer(shape, device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    output = WAYS[way](layer, shape)
    return torch.cuda.max_memory_allocated(device) - before - output.nbytes


OWN_SECTIONS: Final[
    dict[str, Callable[[Sizes, torch.device], Measurements]]
] = {  # that build what they measure
    "layer": time_layer,
    "memory": measure_memory,
    "counting": time_counting,
    "detection": time_detection,
    "methods": time_methods,
    "observe": time_observing,
}
MODEL_SECTIONS: Final[dict[str, Callable[[Sizes, VLM, str], Measurements]]] = {
    "model": time_model,
    "decode": time_decoding,
    "pope": run_pope,
    "chair": run_chair,
    "long": time_long_prompts,
}
