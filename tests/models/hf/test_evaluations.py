"""POPE and captions on twelve scenes, asked of tiny checkpoints of many families by command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval import chair_eval, pope_eval
from tests.models.hf import CHECKPOINTS
from tests.models.hf.asking import missing
from tests.models.hf.scenes import COUNT, Scenes

# A tenth of uniform attention: random maps have few sinks above it.
EAH = "eah@threshold=0.1"
families = pytest.mark.parametrize("name", CHECKPOINTS)


def answers(folder: Path, arm: str) -> list[dict[str, Any]]:
    """Return an arm's answers in the one run folder below a folder."""
    (found,) = folder.glob(f"*/*/*/arms/{arm}/answers.jsonl")
    return [json.loads(line) for line in found.read_text(encoding="utf-8").splitlines()]


def run_record(folder: Path) -> dict[str, Any]:
    """Return the run.json of the one run folder below a folder."""
    (found,) = folder.glob("*/*/*/run.json")
    return dict(json.loads(found.read_text(encoding="utf-8")))


def options(folder: Path, scenes: Scenes, output: Path) -> list[str]:
    """Return flags that every command here has."""
    return [
        *("--model", "hf", "--checkpoint", str(folder), "--data-path", str(scenes.images)),
        *("--method", "baseline", EAH, "--output-dir", str(output)),
    ]


@families
def test_pope_and_captions_on_twelve_scenes(
    name: str,
    folder_of: Callable[[str], Path],
    scenes: Scenes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One by one as in batches; each answer under EAH has what its layer found."""
    if absent := missing(CHECKPOINTS[name].images_need):
        pytest.skip(f"the processor of {name} needs {', '.join(absent)}")
    folder = folder_of(name)
    for size in ("1", "5"):
        common = [*options(folder, scenes, tmp_path / size), "--batch-size", size]
        questions = ["--pope-type", "random", "--pope-path", str(scenes.pope), "--limit", "24"]
        asked = [*questions, "--max-new-tokens", "3"]
        assert pope_eval.main([*common, *asked]) == 0, capsys.readouterr().err
        asked = ["--num-images", str(COUNT), "--max-new-tokens", "6"]
        common = [*options(folder, scenes, tmp_path / f"captions-{size}"), "--batch-size", size]
        assert chair_eval.main([*common, *asked]) == 0, capsys.readouterr().err

    for command, count in (("", 24), ("captions-", COUNT)):
        alone, together = tmp_path / f"{command}1", tmp_path / f"{command}5"
        for arm in ("baseline", EAH):
            one, other = answers(alone, arm), answers(together, arm)
            assert [row["answer"] for row in one] == [row["answer"] for row in other]
            assert len(one) == count
        found = [row["eah"] for row in answers(together, EAH)]
        assert all(layer["image_tokens"] >= 4 for layers in found for layer in layers)
        assert len({row["answer"] for row in answers(alone, "baseline")}) > 1
