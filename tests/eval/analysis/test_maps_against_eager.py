"""Every number of the map is what loops over plain eager attention give."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest

import models
from eval import sinks
from scripts.scenes.make import write_scenes
from tests.eval.analysis.eager_loops import Counted, count
from tests.eval.analysis.small_models import HEADS, LAYERS, write_llava
from tests.models.hf import build

QUESTION = "What is in this picture?"
GAMMAS = (0.15, 0.2)
Row = dict[str, str]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=3, seed=11)
    return folder


def analyse(folder: Path, scenes: Path, *words: str) -> Path:
    """Run the command in a folder; return its run folder."""
    common = ["--data-path", str(scenes / "val2014"), "--output-dir", str(folder / "runs")]
    common += ["--gpu-id", "-1", "--question", QUESTION, "--batch-size", "2"]
    assert sinks.main([*common, *words]) == 0
    (path,) = (folder / "runs/sinks").glob("*/*")
    return path


def rows_of(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sinks_of(head: Counted, threshold: float, unit: str) -> int:
    bounds = [threshold * (one if unit == "uniform" else 1) for one in head.uniform]
    return sum(mean > bound for mean, bound in zip(head.means, bounds, strict=True))


def check(path: Path, vlm: models.VLM, pictures: Sequence[Path], thresholds: Sequence[float],
          unit: str) -> None:  # fmt: skip
    """Compare a run's map with loops over the eager weights of each prompt."""
    counted = [count(vlm, picture, QUESTION) for picture in pictures]
    layers, heads = len(counted[0]), len(counted[0][0])
    rows = rows_of(path / "sinks.csv")
    assert len(rows) == len(thresholds) * layers * heads
    for row in rows:
        threshold, layer, head = float(row["threshold"]), int(row["layer"]), int(row["head"])
        shares, attention, wins = [], [], []
        for prompt in counted:
            tokens = len(prompt[layer][head].means)
            numbers = [sinks_of(one, threshold, unit) for one in prompt[layer]]
            sums = [sum(one.means) for one in prompt[layer]]
            shares.append(numbers[head] / tokens)
            attention.append(sums[head])
            tied = [h for h in range(heads) if numbers[h] == max(numbers)]
            first = max(tied, key=lambda h: sums[h]) if unit == "uniform" else tied[0]
            wins.append(max(numbers) > 0 and first == head)
        assert float(row["density"]) == pytest.approx(fmean(shares), abs=1e-5)
        assert float(row["image_attention"]) == pytest.approx(fmean(attention), abs=1e-5)
        assert float(row["densest"]) == pytest.approx(fmean(wins), abs=1e-5)
        assert row["threshold_unit"] == unit
        assert int(row["prompts"]) == int(row["pictures"]) == len(pictures)


def test_tiny_llava(tmp_path: Path, scenes: Path) -> None:
    path = analyse(tmp_path, scenes, "--model", "tiny-llava")

    vlm = models.load("tiny-llava", device="cpu")
    check(path, vlm, sorted((scenes / "val2014").iterdir()), [1.25], "uniform")


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava"))


def test_a_random_llava_of_eight_layers(tmp_path: Path, scenes: Path, llava: Path) -> None:
    words = ["--model", "llava-1.5", "--checkpoint", str(llava), "--dtype", "float32"]
    path = analyse(tmp_path, scenes, *words, "--THRES", "0.02", "0.01", "0.03")

    rows = rows_of(path / "sinks.csv")
    assert {(int(row["layer"]), int(row["head"])) for row in rows} == {
        (layer, head) for layer in range(LAYERS) for head in range(HEADS)
    }
    assert 0 < fmean(float(row["density"]) for row in rows) < 1
    vlm = models.load("llava-1.5", checkpoint=str(llava), dtype="float32", device="cpu")
    pictures = sorted((scenes / "val2014").iterdir())
    check(path, vlm, pictures, [0.02, 0.01, 0.03], "attention")
    _check_dense_share(path, rows)


def _check_dense_share(path: Path, rows: Sequence[Row]) -> None:
    """Compare the dense-head share of each layer with what its observations hold."""
    import json

    lines = [json.loads(line) for line in (path / "observations.jsonl").read_text().splitlines()]
    (file,) = (path / "figures").glob("*dense-heads-0.02*.csv")
    for row in rows_of(file):
        layer = int(row["layer"])
        shares = [
            [count / line["image_tokens"] for count in line["layers"][layer]["sinks"][0]]
            for line in lines
        ]
        for gamma in GAMMAS:
            (value,) = (float(text) for name, text in row.items() if str(gamma) in name)
            dense = fmean(fmean(share >= gamma for share in one) for one in shares)
            assert value == pytest.approx(dense, abs=1e-9)


@pytest.mark.parametrize("family", ["qwen2.5-vl", "llava-onevision", "llava-next"])
def test_any_model_of_transformers(tmp_path: Path, scenes: Path, family: str) -> None:
    folder = build(family, tmp_path / "model")
    words = ["--model", "hf", "--checkpoint", str(folder), "--dtype", "float32"]
    path = analyse(tmp_path, scenes, *words, "--num-images", "2")

    vlm = models.load("hf", checkpoint=str(folder), dtype="float32", device="cpu")
    shown = {line.split('"image": "')[1].split('"')[0]
             for line in (path / "observations.jsonl").read_text().splitlines()}  # fmt: skip
    check(path, vlm, [scenes / "val2014" / name for name in sorted(shown)], [1.25], "uniform")


def test_batches_change_nothing(tmp_path: Path, scenes: Path, llava: Path) -> None:
    words = ["--model", "llava-1.5", "--checkpoint", str(llava), "--dtype", "float32"]
    whole = analyse(tmp_path / "whole", scenes, *words, "--THRES", "0.02")
    single = analyse(tmp_path / "single", scenes, *words, "--THRES", "0.02", "--batch-size", "1")

    for one, other in zip(rows_of(whole / "sinks.csv"), rows_of(single / "sinks.csv"), strict=True):
        assert {k: v for k, v in one.items() if "." not in v} == {
            k: v for k, v in other.items() if "." not in v
        }
        for name in ("density", "image_attention", "densest"):
            assert float(one[name]) == pytest.approx(float(other[name]), abs=1e-5)
    assert os.path.basename(whole) == os.path.basename(single)
