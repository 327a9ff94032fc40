"""Asking: each picture once, progress by arm, one warning, costs by batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import models
from eval.pope_eval import main
from tests.eval.small_runs import count_calls, only_run, pope_flags

QUESTIONS, PICTURES = 24, 4


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return pope_flags(tmp_path_factory.mktemp("scenes"), PICTURES)


@pytest.fixture
def flags(scenes: list[str], tmp_path: Path) -> list[str]:
    return [*scenes, "--output-dir", str(tmp_path)]


def costs_of(root: Path, arm: str) -> list[dict[str, Any]]:
    lines = (only_run(root) / "arms" / arm / "costs.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("size", ["3", "5", "16"])
def test_each_picture_is_encoded_once_for_all_questions_and_arms(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    encoded: list[int] = []
    wrapper = type(models.load("tiny-llava", device="cpu"))
    encode_pixels = wrapper.encode_pixels

    def counted(self: models.VLM, pixels: Any) -> Any:
        encoded.append(len(pixels))
        return encode_pixels(self, pixels)

    monkeypatch.setattr(wrapper, "encode_pixels", counted)

    assert main([*flags, "--batch-size", size]) == 0

    assert sum(encoded) == PICTURES


def test_the_progress_names_arms_and_starts_at_what_is_recorded(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        count_calls(patch, stop_at=4)
        assert main([*flags, "--batch-size", "4"]) == 130
    capsys.readouterr()

    assert main(flags) == 0

    shown = capsys.readouterr().err
    assert f"{16}/{2 * QUESTIONS}" in shown.partition("answer/s")[0]
    assert f"{2 * QUESTIONS}/{2 * QUESTIONS}" in shown
    assert "baseline: " in shown
    assert "eah: " in shown
    assert "opera: " not in shown, "the protocol's name is no arm"


def test_saturation_is_warned_about_once(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ["eah@threshold=1e-12", "eah@layers=2,threshold=1e-12"]

    assert main([*flags, "--method", "baseline", *arms]) == 0

    shown = capsys.readouterr().err
    assert shown.count("every image token passes the threshold") == 1
    assert "warning: eah@threshold=1e-12: in layer 1" in shown


def test_costs_are_recorded_by_batch(flags: list[str], tmp_path: Path) -> None:
    assert main([*flags, "--batch-size", "10"]) == 0

    for arm in ("baseline", "eah"):
        costs = costs_of(tmp_path, arm)
        assert [cost["batch"] for cost in costs] == ["random/1+10", "random/11+10", "random/21+4"]
        assert sum(cost["prompts"] for cost in costs) == QUESTIONS
        assert all(cost["tokens"] == cost["forwards"] > 0 < cost["seconds"] for cost in costs)
        assert len({cost["device"] for cost in costs}) == 1


def test_a_batch_that_is_answered_under_one_arm_is_asked_under_the_other(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        count_calls(patch, stop_at=3)  # baseline, EAH, baseline
        assert main([*flags, "--batch-size", "12"]) == 130
    asked = count_calls(monkeypatch)

    assert main([*flags, "--batch-size", "12"]) == 0

    assert [count for count, _ in asked] == [12]
    assert [len(costs_of(tmp_path, arm)) for arm in ("baseline", "eah")] == [2, 2]
