"""--compile: which runs decode by captured steps, and which are refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import models
from eval.chair_eval import main as chair
from eval.pope_eval import main as pope
from eval.run.steps import decode_steps
from models.decoding.steps.steps import DecodeSteps
from models.decoding.vcd import Vcd
from scripts.scenes.make import write_scenes


@pytest.fixture(scope="module")
def vlm() -> models.VLM:
    return models.load("tiny-llava", device="cpu")


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.decoding.steps.support.reason_against", lambda _: None)


def plan(way: str, *, beams: int = 1, tokens: int = 64, method: Any = None) -> Any:
    decoding = models.Decoding(max_new_tokens=tokens, num_beams=beams)
    arms = [SimpleNamespace(name="baseline", decoding=None)]
    arms += [SimpleNamespace(name="vcd", decoding=method)] if method is not None else []
    return SimpleNamespace(compile=way, decoding=decoding, arms=arms)


@pytest.mark.parametrize(
    ("settings", "has_steps"),
    [
        ({}, True),
        ({"beams": 2}, False),
        ({"tokens": 1}, False),
        ({"method": Vcd()}, False),
        ({"way": "never"}, False),
        ({"way": "always"}, True),
    ],
    ids=str,
)
def test_arms_that_all_decode_plainly_have_steps(
    vlm: models.VLM, on_a_gpu: None, settings: dict[str, Any], has_steps: bool
) -> None:
    asked = plan(**{"way": "auto", **settings})

    found = decode_steps(vlm, asked, is_first=True)

    assert isinstance(found, DecodeSteps) == has_steps
    if found is not None:
        assert found.compiles == found.is_required == (asked.compile == "always")


def test_a_model_that_has_none_on_a_gpu_is_named_once(
    vlm: models.VLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "its weights are quantized"
    monkeypatch.setattr("models.decoding.steps.support.reason_against", lambda _: reason)
    gpu = SimpleNamespace(
        language_model=vlm.language_model, prefix_note=None, device=SimpleNamespace(type="cuda")
    )

    for is_first in (True, False):
        assert decode_steps(cast("Any", gpu), plan("auto"), is_first=is_first) is None
    assert capsys.readouterr().err.count(reason) == 1
    assert decode_steps(vlm, plan("auto"), is_first=True) is None
    assert capsys.readouterr().err == "", "beside a CPU nobody expects it"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=3, seed=1)
    return folder


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--compile", "always"], "--compile always: that needs a CUDA GPU; leave --compile out"),
        (["--compile", "always", "--beam", "2"], "beam search (--beam 2)"),
        (["--compile", "always", "--method", "baseline", "vcd"], "vcd chooses tokens"),
        (
            ["--compile", "alwaysx"],
            "command line: compile='alwaysx', but it is one of auto, always, never",
        ),
        (["--options", "compile=on"], "--options: compile=True, but it is one of auto, always,"),
        (["--dry-run", "--compile", "always"], "--compile always: that needs a CUDA GPU"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_refused_in_one_sentence(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], said: str
) -> None:
    flags = ["--model", "tiny-llava", "--gpu-id", "-1", "--data-path", str(scenes / "val2014")]

    status = chair([*flags, "--num-images", "2", "--output-dir", str(tmp_path), *extra])

    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert said in error
    assert not list(tmp_path.rglob("answers.jsonl"))


def test_one_token_by_likelihood_has_no_decode_step(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", "tiny-llava", "--gpu-id", "-1", "--data-path", str(scenes / "val2014")]
    flags += ["--pope-path", str(scenes / "pope"), "--output-dir", str(tmp_path), "--limit", "3"]
    flags += ["--build-from", str(scenes / "annotations/instances_val2014.json")]

    assert pope([*flags, "--scoring", "likelihood", "--compile", "always"]) == 2
    assert "one token has no decode step" in capsys.readouterr().err
