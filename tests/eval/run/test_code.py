"""Code, versions and weights that answered are recorded, and any change of them is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from eval.pope_eval import main
from eval.run.provenance import code_changes, current_code, setting_changes
from tests.eval.small_runs import ROOT, count_calls, lines_of, only_run, pope_flags, state_of

WEIGHTS = "sha256:1"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("eah/method.py", "models/decoding/vcd.py", "models/base.py", "eval/runs.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "models/weights.bin").write_text("")
    monkeypatch.setattr("eval.run.provenance.ROOT", tmp_path)
    return tmp_path


def test_the_sources_of_method_and_models_are_recorded(sources: Path) -> None:
    code = current_code(WEIGHTS)

    assert list(code["files"]) == ["eah/method.py", "models/base.py", "models/decoding/vcd.py"]
    assert code["weights"] == WEIGHTS
    assert code["versions"]["torch"]
    assert code_changes(code, current_code(WEIGHTS)) == []
    assert current_code(WEIGHTS) == code


def test_a_checkout_elsewhere_is_the_same_code(
    sources: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = current_code(WEIGHTS)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(sources, elsewhere)
    monkeypatch.setattr("eval.run.provenance.ROOT", elsewhere)

    assert current_code(WEIGHTS) == here


@pytest.mark.parametrize(
    ("edited", "named"),
    [
        (["eah/method.py"], "eah/method.py changed"),
        (["models/base.py", "eah/method.py"], "eah/method.py, models/base.py changed"),
        (
            ["models/base.py", "eah/method.py", "models/a.py", "models/b.py"],
            "eah/method.py, models/a.py and 2 more changed",
        ),
    ],
    ids=["one", "two", "many"],
)
def test_changed_and_added_files_are_named(sources: Path, edited: list[str], named: str) -> None:
    before = current_code(WEIGHTS)
    for name in edited:
        (sources / name).write_text("edited")

    assert code_changes(before, current_code(WEIGHTS)) == [named]


def test_a_removed_or_renamed_file_is_named(sources: Path) -> None:
    before = current_code(WEIGHTS)
    (sources / "models/base.py").rename(sources / "models/last.py")

    changes = code_changes(before, current_code(WEIGHTS))

    assert changes == ["models/base.py, models/last.py changed"]


def test_code_beside_method_and_models_decides_no_answer(sources: Path) -> None:
    before = current_code(WEIGHTS)
    (sources / "eval/runs.py").write_text("edited")
    (sources / "models/weights.bin").write_text("edited")

    assert current_code(WEIGHTS) == before


def test_versions_and_weights_are_compared() -> None:
    now = current_code(WEIGHTS)
    then = deepcopy(now)
    then["versions"] |= {"torch": "1.0", "python": "2.7", "eah": "0.0"}
    del then["versions"]["pillow"]
    then["weights"] = "sha256:2"

    assert code_changes(then, now) == [
        f"torch 1.0 -> {now['versions']['torch']}",
        f"pillow None -> {now['versions']['pillow']}",
        "weights sha256:2 -> sha256:1",
    ]


def test_an_arm_without_recorded_code_is_of_other_code() -> None:
    now = current_code(WEIGHTS)

    assert code_changes({"versions": now["versions"], "weights": WEIGHTS}, now)


@pytest.mark.parametrize(
    ("then", "now", "named"),
    [
        ({"settings": {"alpha": 1.0}}, {"settings": {"alpha": 0.5}}, ["alpha 1.0 -> 0.5"]),
        ({"eah": {"layers": [1]}}, {"eah": {"layers": [2]}}, ["layers [1] -> [2]"]),
        ({"settings": {"alpha": 1.0}}, {"settings": None}, ["alpha 1.0 -> None"]),
        ({"settings": {"alpha": 1.0}}, {"settings": {"alpha": 1.0, "new": 3}}, []),
        ({"settings": None, "eah": None}, {"settings": None, "eah": None}, []),
        ({}, {"eah": {"layers": [2]}}, []),
    ],
)
def test_settings_that_mean_something_else_are_named(
    then: dict[str, Any], now: dict[str, Any], named: list[str]
) -> None:
    assert setting_changes(then, now) == named


def test_a_run_is_not_continued_by_an_edited_checkout(tmp_path: Path) -> None:
    """The whole way, once: a copy of the checkout, edited, and started as a user starts it."""
    checkpoint = ["--checkpoint", str(ROOT / "models/tiny-llava")]
    flags = [*pope_flags(tmp_path / "scenes"), *checkpoint, "--output-dir", str(tmp_path / "runs")]
    with pytest.MonkeyPatch.context() as patch:
        count_calls(patch, stop_at=3)
        assert main(flags) == 130
    run = only_run(tmp_path / "runs")
    assert (len(lines_of(run, "baseline")), len(lines_of(run, "eah"))) == (16, 8)
    copy = tmp_path / "checkout"
    no_weights = shutil.ignore_patterns("*.safetensors", "__pycache__")
    for folder in ("eah", "models", "eval", "configs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=no_weights)
    before = state_of(run)

    def start(*extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "eval/pope_eval.py", *flags, *extra],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
        )

    with (copy / "eah/method.py").open("a") as file:
        file.write("\n# edited\n")
    refused = start()

    assert refused.returncode == 2
    assert state_of(run) == before
    (error,) = [line for line in refused.stderr.splitlines() if "error" in line]
    assert "(eah/method.py changed): pass --fresh to set its 16 answers aside" in error
    assert "Traceback" not in refused.stderr

    accepted = start("--accept-old")

    assert accepted.returncode == 0, accepted.stderr
    assert len(lines_of(run, "baseline")) == len(lines_of(run, "eah")) == 24
