"""What `eah.observe` costs in all 32 layers of a LLaVA, compared with a plain prefill.

    python scripts/bench/observing.py observe --width 256    # peak memory of one prefill, in bytes

`costs.py` runs it, on a model of `deep_vlm.py`: one prefill of one prompt. On a CPU, time is the
process's own, and memory is measured in a separate process, which is what this file does as a
command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

import eah
from models.base import VLM
from models.generation import EncodedPrompts
from scripts.bench.deep_vlm import LAYERS, NAME, make_deep_vlm
from scripts.bench.fresh import run_in_fresh_process
from scripts.bench.model import MIB, work_time
from scripts.bench.released import resident_bytes
from scripts.bench.rounds import Measurement, Measurements
from scripts.bench.rows import Row
from scripts.bench.vlm import eah_config

TEXT: Final = 64  # tokens around those of the image
FEW: Final = 48  # tokens of a first pass, some of the image's among them
MEMORY_REPEATS: Final = 3
PEAK: Final = Path("/proc/self/clear_refs")
TIME, MEMORY = "time, ms", "memory over weights, MiB"
COUNTED_ONCE: Final = ("paper", "scale_free")


@dataclass(frozen=True, slots=True)
class ObserveShape:
    """The model and its prompt.

    Attributes:
        width: Of the language model, in heads of 64; None for LLaVA-1.5-7B's own size.
        side: Of its pictures, in patches: the square is the number of image tokens.
    """

    width: int | None = None
    side: int = 24

    @property
    def tokens(self) -> int:
        """Length of the prompt."""
        return self.side**2 + TEXT


@contextmanager
def _observe_layers(vlm: VLM, rules: tuple[str, ...], *, reports: bool = False) -> Iterator[None]:
    """Observe all layers in a `with` block, and report at its end if that is measured too."""
    with eah.observe(vlm.model, rules=rules) as seen:
        yield
    if reports:
        seen.report()


WAYS: Final[dict[str, Callable[[VLM], AbstractContextManager[Any]]]] = {
    "plain": lambda _: nullcontext(),
    "EAH": lambda vlm: eah.enabled(vlm.model, eah_config(NAME)),
    "observe": lambda vlm: _observe_layers(vlm, COUNTED_ONCE),
    # In half precision these are two counts.
    "observe, released_code too": lambda vlm: _observe_layers(vlm, tuple(eah.method.RULES)),
    "observe and report": lambda vlm: _observe_layers(vlm, COUNTED_ONCE, reports=True),
}


def observing_measurements(
    shape: ObserveShape, device: torch.device, most: int | None = None
) -> Measurements:
    """Run one prefill in every way, and take its time and memory.

    Args:
        shape: The model and its prompt.
        device: Where it runs.
        most: Rounds at most that count; None for no limit.
    Yields:
        What to measure; how much more memory observing takes is a sentence.
    """
    vlm = make_deep_vlm(device, shape.width, shape.side)
    prompts = make_prompts(vlm, shape.tokens)
    text = vlm.model.config.text_config
    title = f"a prefill of {shape.tokens} tokens, {LAYERS} layers of width {text.hidden_size}"
    arms = {way: partial(_time, vlm, prompts, way) for way in WAYS}
    yield Measurement(title, arms, most, share=0.5)
    memory = partial(_memory_on_gpu, vlm, prompts)
    if device.type == "cpu":
        memory = partial(_memory_in_fresh_process, shape)
    arms = {way: partial(memory, way) for way in WAYS}
    yield Measurement(
        title, arms, MEMORY_REPEATS, warm_up=0, absolute=(MEMORY,), lines=_more_memory
    )


def _more_memory(rows: Sequence[Row]) -> list[str]:
    taken = {row.arm: median(row.values) for row in rows if row.values}
    if not {"plain", "observe"} <= taken.keys():
        return []
    more = taken["observe"] - taken["plain"]
    return [f"{rows[0].measured}: observe takes {more:.1f} MiB more than plain."]


@torch.inference_mode()
def make_prompts(vlm: VLM, tokens: int) -> EncodedPrompts:
    """Return one prompt of a number of tokens about a random picture."""
    side = vlm.model.config.vision_config.image_size
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    question = " ".join(["is"] * (tokens - vlm.prompt_length("")))
    prompts = vlm.embed_prompts(vlm.encode_pixels(pixels), [question])
    assert prompts.embeds.shape[1] == tokens, "words are tokens"
    return prompts


@torch.inference_mode()
def prefill(vlm: VLM, prompts: EncodedPrompts) -> None:
    """Run one forward pass, as `generate` does for the first token."""
    with eah.image_tokens(vlm.model, prompts.image_mask):
        vlm.language_model(inputs_embeds=prompts.embeds, use_cache=True, logits_to_keep=1)


def _time(vlm: VLM, prompts: EncodedPrompts, way: str) -> dict[str, float]:
    """Return the time of one prefill; without that of entering the block."""
    clock = partial(work_time, vlm.device)
    reports = way.endswith("report")
    with WAYS[way](vlm):
        start = clock()
        prefill(vlm, prompts)
        end = clock()
    return {TIME: 1000 * ((clock() if reports else end) - start)}


def _memory_on_gpu(vlm: VLM, prompts: EncodedPrompts, way: str) -> dict[str, float]:
    before = torch.cuda.memory_allocated(vlm.device)
    torch.cuda.reset_peak_memory_stats(vlm.device)
    with WAYS[way](vlm):
        prefill(vlm, prompts)
    return {MEMORY: (torch.cuda.max_memory_allocated(vlm.device) - before) / MIB}


def _memory_in_fresh_process(shape: ObserveShape, way: str) -> dict[str, float]:
    words = [way, "--side", str(shape.side)]
    words += [] if shape.width is None else ["--width", str(shape.width)]
    return {MEMORY: run_in_fresh_process(sys.modules[__name__], *words) / MIB}


def peak_bytes(way: str, shape: ObserveShape) -> int:
    """Measure the peak resident memory of one prefill over what is there before, on the CPU."""
    vlm = make_deep_vlm(torch.device("cpu"), shape.width, shape.side)
    prompts = make_prompts(vlm, shape.tokens)
    few = EncodedPrompts(
        prompts.embeds[:, :FEW], prompts.attention_mask[:, :FEW], prompts.image_mask[:, :FEW]
    )
    with WAYS[way](vlm):
        prefill(vlm, few)  # threads and libraries
    PEAK.write_text("5")  # building the model took more than a prefill does
    before = resident_bytes("VmRSS")
    with WAYS[way](vlm):
        prefill(vlm, prompts)
    return resident_bytes("VmHWM") - before


def main() -> None:
    """Parse the command line and print the memory of one way, in bytes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("way", choices=WAYS, help="how the prompt is run")
    parser.add_argument("--width", type=int, help="of the language model (LLaVA-1.5-7B's)")
    parser.add_argument("--side", type=int, default=24, help="of the picture, in patches (24)")
    args = parser.parse_args()
    print(peak_bytes(args.way, ObserveShape(args.width, args.side)))


if __name__ == "__main__":
    main()
