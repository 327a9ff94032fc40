"""Costs of each decoding method and the baseline: time, forward passes, and rows of a batch.

`costs.py` runs it, on a model of `deep_vlm.py`. All answers are of the same length. On a CPU, time
is the process's own, summed over threads: rounds take minutes, in which others come and go.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

import eah
from models.base import VLM
from models.decoding.adhh import Adhh
from models.decoding.base import DecodingMethod
from models.decoding.deco import Deco
from models.decoding.dola import Dola
from models.decoding.hgai import Hgai
from models.decoding.opera import Opera
from models.decoding.pai import Pai
from models.decoding.spin import Spin
from models.decoding.vaf import Vaf
from models.decoding.var import Var
from models.decoding.vcd import Vcd
from models.generation import Decoding
from models.prefix_cache import PicturePrefixes, PrefixCache
from models.settings import model_settings
from scripts.bench.deep_vlm import LAYERS, NAME, make_deep_vlm
from scripts.bench.model import work_time
from scripts.bench.rounds import Arm, Measurement, Measurements
from scripts.bench.rows import Row, compare_arms
from scripts.bench.vlm import eah_config

TIME: Final = "time, ms"
PASSES, ROWS = "forward passes per token", "rows per pass"
CAPTION: Final = "Please help me describe the image in detail."
THINGS: Final = ("cat", "dog", "car", "tree", "person", "bottle", "chair", "book")
WIDTH: Final = 4096  # of LLaVA-1.5-7B


@dataclass(frozen=True, slots=True)
class MethodShape:
    """What is asked of the model.

    Attributes:
        width: Of the language model, in heads of 64; None for LLaVA-1.5-7B's own size.
        side: Of its pictures, in patches: the square is the number of image tokens.
        caption: Tokens of a caption.
        answer: Tokens of an answer to each of eight questions about one picture.
        beams: Of the arms with beams.
    """

    width: int | None = None
    side: int = 24
    caption: int = 64
    answer: int = 4
    beams: int = 5


@dataclass(frozen=True, slots=True)
class _MethodArm:
    """One arm: a method or none, with EAH or not, and its beams."""

    method: DecodingMethod | None = None
    eah: bool = False
    beams: int = 1


def method_measurements(
    shape: MethodShape, device: torch.device, most: int | None = None
) -> Measurements:
    """Caption a picture, then answer eight questions about one, under every method.

    Args:
        shape: What is asked.
        device: Where the model runs.
        most: Rounds at most that count; None for no limit.
    Yields:
        What to measure; a sentence compares OPERA with beam search.
    """
    vlm = make_deep_vlm(device, shape.width, shape.side)
    text = vlm.model.config.text_config
    about = f"{LAYERS} layers of width {text.hidden_size}"
    pair = _arm_with_beams("opera", shape), _arm_with_beams("baseline", shape)

    def lines(rows: Sequence[Row]) -> list[str]:
        return compare_arms([row for row in rows if row.quantity == TIME], [pair])

    for title, arms, share in (
        (f"a caption of {shape.caption} tokens, {about}", caption_arms(vlm, shape), 0.5),
        (f"{len(THINGS)} questions about a picture, {about}", question_arms(vlm, shape), 1.0),
    ):
        yield Measurement(title, arms, most, absolute=(PASSES, ROWS), share=share, lines=lines)


def methods_of(vlm: VLM) -> dict[str, DecodingMethod]:
    """Return every method by its name in `configs/methods.yaml`, with its published settings.

    Heads and dimensions of LLaVA-1.5-7B are taken modulo those of a narrower model, and VAR's
    threshold is the same share of the largest value that its hidden states can have.
    """
    text = vlm.model.config.text_config
    known = model_settings("llava-1.5").methods
    pairs = [head.split("h") for head in known["adhh"]["heads"].split("+")]
    heads = {f"{layer}h{int(head) % text.num_attention_heads}" for layer, head in pairs}
    return {
        "vcd": Vcd(),
        "dola": Dola(),
        "pai": Pai(),
        "hgai": Hgai(),
        "vaf": Vaf(),
        "deco": Deco(),
        "var": Var(
            tuple(dim % text.hidden_size for dim in known["var"]["sink_dims"]),
            tau=Var().tau * math.sqrt(text.hidden_size / WIDTH),
        ),
        "adhh": Adhh("+".join(sorted(heads))),
        "spin": Spin(),
        "opera": Opera(),
    }


def caption_arms(vlm: VLM, shape: MethodShape) -> dict[str, Arm]:
    """Return one caption of one picture under each method."""
    return _arms(vlm, shape, [CAPTION], shape.caption, reuse=False)


def question_arms(vlm: VLM, shape: MethodShape) -> dict[str, Arm]:
    """Return eight questions about one picture in a batch, with prefix reuse where it is allowed.

    The prefix is computed in each round.
    """
    questions = [f"Is there a {thing} in the image?" for thing in THINGS]
    return _arms(vlm, shape, questions, shape.answer, reuse=True)


def _arms(
    vlm: VLM, shape: MethodShape, questions: list[str], tokens: int, *, reuse: bool
) -> dict[str, Arm]:
    ways: dict[str, _MethodArm] = {"baseline": _MethodArm(), "eah": _MethodArm(eah=True)}
    for name, method in methods_of(vlm).items():
        if method.repeats_prompts:
            ways[name] = _MethodArm(method)
        else:  # OPERA, a beam search
            ways[_arm_with_beams("baseline", shape)] = _MethodArm(beams=shape.beams)
            ways[_arm_with_beams(name, shape)] = _MethodArm(method, beams=shape.beams)
    side = vlm.model.config.vision_config.image_size
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    ask = partial(_ask, vlm, pixels, questions, tokens, reuse)
    return {name: partial(ask, way) for name, way in ways.items()}


def _arm_with_beams(name: str, shape: MethodShape) -> str:
    return f"{name}, {shape.beams} beams"


@torch.inference_mode()
def _ask(
    vlm: VLM, pixels: torch.Tensor, questions: list[str], tokens: int, reuse: bool, way: _MethodArm
) -> dict[str, float]:
    """Answer questions about one picture, and return time, forward passes and rows."""
    count = len(questions)
    shown, noised = vlm.encode_pixels(pixels), None
    if isinstance(way.method, Vcd):
        noised = vlm.encode_pixels(way.method.add_noise(pixels, 0)).expand(count, -1, -1)
    enabled = eah.enabled(vlm.model, eah_config(NAME)) if way.eah else nullcontext()
    with enabled, _count_rows(vlm.language_model) as rows:
        start = work_time(vlm.device)
        answers = vlm.answer_batch(
            shown.expand(count, -1, -1),
            questions,
            Decoding(tokens, way.beams),
            way.method,
            noised,
            PicturePrefixes([0] * count, PrefixCache()) if reuse else None,
        )
        seconds = work_time(vlm.device) - start
    assert all(answer.tokens == tokens for answer in answers), "an answer ended early"
    taken = {TIME: 1000 * seconds}
    # With reuse, passes that compute a prefix count as well, and say little.
    return taken if reuse else {**taken, **_per_token(rows, tokens)}


def _per_token(rows: Sequence[int], tokens: int) -> dict[str, float]:
    """Return how many forward passes a token takes, and of how many rows they are."""
    return {PASSES: len(rows) / tokens, ROWS: sum(rows) / len(rows)}


@contextmanager
def _count_rows(model: Any) -> Iterator[list[int]]:
    """In a `with` block, collect the batch rows of every forward pass."""
    rows: list[int] = []

    def count(_: Any, __: Any, kwargs: Mapping[str, Any]) -> None:
        given = kwargs.get("inputs_embeds")
        rows.append(len(kwargs["input_ids"] if given is None else given))

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield rows
    finally:
        hook.remove()
