"""The benchmark of methods runs every one of them, as published, and nothing in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import eah
from models.base import VLM
from models.decoding.base import DecodingMethod
from models.generation import Answer
from models.methods import read_methods
from scripts.bench import costs
from scripts.bench.deep_vlm import make_deep_vlm
from scripts.bench.methods import (
    MethodShape,
    caption_arms,
    method_measurements,
    methods_of,
    question_arms,
)
from scripts.bench.rounds import run_rounds

CPU = torch.device("cpu")
SHAPE = MethodShape(width=64, side=4, caption=3, answer=2, beams=2)
# Settings that depend on the width of a model.
OF_A_MODEL = {"var": ("sink_dims", "tau"), "adhh": ("heads",)}


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return make_deep_vlm(CPU, SHAPE.width, SHAPE.side)


@pytest.fixture
def asked(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Collect how the model is asked: method, beams, prompts, reuse, EAH."""
    found: list[tuple[Any, ...]] = []
    own = vlm.answer_batch

    def answer(*arguments: Any) -> Any:
        _, questions, decoding, method, _, prefixes = arguments
        name = type(method).__name__.lower() if isinstance(method, DecodingMethod) else None
        how = decoding.num_beams, len(questions), prefixes is not None, eah.is_enabled(vlm.model)
        found.append((name, *how))
        return own(*arguments)

    monkeypatch.setattr(vlm, "answer_batch", answer)
    return found


def test_every_method_is_measured_with_its_default_settings(vlm: VLM) -> None:
    methods = methods_of(vlm)

    assert set(read_methods()) <= set(methods)
    for name, method in methods.items():
        published = type(method)()
        for setting in method.__dataclass_fields__:
            if setting not in OF_A_MODEL.get(name, ()):
                assert getattr(method, setting) == getattr(published, setting), name


def test_every_arm_asks_the_model_as_its_name_says(vlm: VLM, asked: list[tuple[Any, ...]]) -> None:
    names = {}
    for arms, prompts, reuse in ((caption_arms, 1, False), (question_arms, 8, True)):
        for name, run in arms(vlm, SHAPE).items():
            assert run()["time, ms"] > 0
            (method, beams, *how) = asked.pop()
            names[name] = method, beams, how[2]
            assert how[:2] == [prompts, reuse]

    alone = [name for name in methods_of(vlm) if name != "opera"]
    assert names == {
        "baseline": (None, 1, False),
        "eah": (None, 1, True),
        **{name: (name, 1, False) for name in alone},
        "baseline, 2 beams": (None, 2, False),
        "opera, 2 beams": ("opera", 2, False),
    }
    assert not asked


def test_forward_passes_and_rows_of_a_token(vlm: VLM) -> None:
    arms = caption_arms(vlm, SHAPE)

    found = {name: list(run().values())[1:] for name, run in arms.items()}

    alone = set(found) - {"vcd", "pai", "baseline, 2 beams", "opera, 2 beams"}
    assert all(found[name] == [1, 1] for name in alone)
    assert found["vcd"] == found["pai"] == found["baseline, 2 beams"] == [1, 2]
    assert found["opera, 2 beams"][0] == pytest.approx(2, abs=0.4)  # the prompt's pass is one


def test_times_alone_have_ratios_and_opera_stands_beside_beam_search() -> None:
    measured = [(this, run_rounds(this, 1)) for this in method_measurements(SHAPE, CPU)]
    rows = [row for _, found in measured for row in found]
    caption, questions = (line for this, found in measured for line in this.lines(found))

    assert {row.quantity for row in rows if row.ratios} == {"time, ms"}
    assert {row.measured for row in rows} == {
        "a caption of 3 tokens, 32 layers of width 64",
        "8 questions about a picture, 32 layers of width 64",
    }
    for line, title in ((caption, "a caption"), (questions, "8 questions")):
        assert line.startswith(title)
        assert "opera, 2 beams is" in line
        assert line.endswith("times baseline, 2 beams.")


def test_an_answer_that_ends_early_is_not_measured(
    vlm: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [Answer("a cat", finished=True, tokens=SHAPE.caption - 1)]
    monkeypatch.setattr(vlm, "answer_batch", lambda *_: short)

    with pytest.raises(AssertionError, match="ended early"):
        caption_arms(vlm, SHAPE)["baseline"]()


def test_the_command_has_the_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "methods.md"
    words = ["--device", "cpu", "--tiny", "--repeats", "1", "--sections", "methods"]

    assert costs.main([*words, "--markdown", str(file)]) == 0

    assert "| 8 questions about a picture, 32 layers of width 64 | time, ms | spin |" in (
        capsys.readouterr().out
    )
    assert file.read_text().count("| hgai |") == 4
