"""The benchmark of `eah.observe` observes all layers, of the prompt that it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import eah
from models.base import VLM
from scripts.bench import costs, observing
from scripts.bench.deep_vlm import make_deep_vlm
from scripts.bench.observing import WAYS, ObserveShape, make_prompts, prefill

CPU = torch.device("cpu")
SHAPE = ObserveShape(width=64, side=4)


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return make_deep_vlm(CPU, SHAPE.width, SHAPE.side)


def test_a_prompt_has_the_tokens_of_the_shape(vlm: VLM) -> None:
    prompts = make_prompts(vlm, SHAPE.tokens)

    assert ObserveShape().tokens == 640
    assert prompts.embeds.shape[1] == SHAPE.tokens == 80
    assert prompts.image_mask.sum() == 16


def test_every_way_does_what_it_says(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, found = make_prompts(vlm, SHAPE.tokens), {}
    plain = eah.observe

    def observe(model: object, **given: object) -> object:
        found["rules"] = given["rules"]
        return plain(model, **given)

    monkeypatch.setattr(eah, "observe", observe)
    for way, block in WAYS.items():
        found.clear()
        with block(vlm):
            assert eah.is_enabled(vlm.model) == (way == "EAH")
            prefill(vlm, prompts)
        assert ("rules" in found) == way.startswith("observe")
        if "rules" in found:
            assert ("released_code" in found["rules"]) == ("released_code" in way)
    with plain(vlm.model) as seen:
        prefill(vlm, prompts)
    assert [report.image_tokens for report in seen.report()] == [(16,)] * 32


def test_reports_are_part_of_the_time_where_named(
    vlm: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    plain = eah.Observer.report
    monkeypatch.setattr(eah.Observer, "report", lambda self: asked.append(1) or plain(self))
    prompts = make_prompts(vlm, SHAPE.tokens)

    counts = {}
    for way in WAYS:
        asked.clear()
        assert observing._time(vlm, prompts, way)["time, ms"] > 0
        counts[way] = len(asked)

    assert counts == {way: int(way == "observe and report") for way in WAYS}


def test_memory_is_that_of_one_prefill() -> None:
    """In a fresh process: memory that this one once had would be taken again."""
    few, many = (
        observing._memory_in_fresh_process(ObserveShape(64, side), "plain")[
            "memory over weights, MiB"
        ]
        for side in (4, 24)
    )

    assert many > few + 4 * 640 * 64 / 2**20  # at the least the further tokens' hidden states


def test_the_section_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(observing, "_memory_in_fresh_process", lambda shape, way: {"MiB": len(way)})

    costs.main(["--device", "cpu", "--tiny", "--repeats", "1", "--sections", "observe"])

    printed = capsys.readouterr().out
    assert "| a prefill of 80 tokens, 32 layers of width 64 | time, ms | observe |" in printed
    assert "observe takes 2.0 MiB more than plain" in printed
