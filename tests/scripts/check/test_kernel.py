"""The command that compares kernels and reference, at toy sizes in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from eah import EAHConfig
from eah.method import Columns, choose, column_sums
from eah.settings import PRESETS
from scripts.check.kernel import Result, Setup, compare, make_inputs, setups

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
SETUP = Setup(80, torch.float32, kv_heads=2, is_padded=True, heads=4, size=16)


def sums_of(setup: Setup) -> tuple[Columns, torch.Tensor]:
    inputs = make_inputs(setup, CPU)
    told = (inputs.query, inputs.key, inputs.visibility)
    return column_sums(*told, scaling=setup.size**-0.5), inputs.image


@pytest.mark.parametrize("name", PRESETS)
def test_inputs_have_sinks_and_other_columns_in_every_head(name: str) -> None:
    sums, image = sums_of(SETUP)

    choice = choose(sums, image, EAHConfig.preset(name))

    assert (choice.counts > 0).all()
    assert (choice.counts < image.sum(-1)[:, None]).all()


@pytest.mark.parametrize("setup", list(setups()), ids=str)
def test_images_lie_behind_the_padding_and_before_the_end(setup: Setup) -> None:
    small = Setup(setup.tokens, setup.dtype, 1, setup.is_padded, heads=1, size=2)
    inputs = make_inputs(small, CPU)

    assert (inputs.image.sum(1) > 480).all()
    assert not inputs.image[:, -9:].any()
    if inputs.visibility.valid is not None:
        assert not (inputs.image & ~inputs.visibility.valid).any()


def test_equal_sums_are_the_same() -> None:
    sums, image = sums_of(SETUP)
    result = Result(SETUP)

    compare("paper", EAHConfig.preset("paper"), sums, sums, image, 1e-5, result)

    assert (result.largest, result.excused, result.failures) == (0.0, [], [])


def test_a_wrong_sum_is_a_failure() -> None:
    sums, image = sums_of(SETUP)
    wrong = sums._replace(attention=sums.attention * 1.001)
    result = Result(SETUP)

    compare("paper", EAHConfig.preset("paper"), wrong, sums, image, 1e-5, result)

    assert "paper: sums attention differ by 1.0e-03" in result.failures


def test_a_sum_that_is_no_number_is_a_failure() -> None:
    sums, image = sums_of(SETUP)
    wrong = sums._replace(attention=torch.full_like(sums.attention, torch.nan))
    result = Result(SETUP)

    compare("paper", EAHConfig.preset("paper"), wrong, sums, image, 1e-5, result)

    assert result.failures


@pytest.mark.parametrize(("apart", "kind"), [(1e-6, "excused"), (1e-2, "failures")])
def test_only_a_column_at_the_threshold_may_differ(apart: float, kind: str) -> None:
    image = torch.tensor([[True, True, False]])
    rows = torch.tensor([[2.0, 1.0, 0.0]])
    theirs = Columns(torch.tensor([[[1.0, 0.1, 0.0]]]), rows / 3, rows)
    ours = theirs._replace(attention=torch.tensor([[[1.0 - 2 * apart, 0.1, 0.0]]]))
    result = Result(SETUP)

    compare("near", EAHConfig(threshold=0.5 - apart / 2), ours, theirs, image, 1e-5, result)

    assert "near: batch row 0, head 0, column 0: mean 0.500000000" in getattr(result, kind)
    assert bool(result.failures) is (kind == "failures")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/check/kernel.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_the_command_finds_no_difference() -> None:
    done = run("--device", "cpu", "--tiny", TRITON_INTERPRET="1")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| same") == 8
    assert "| bfloat16 | 4/1 | yes" in done.stdout


@pytest.mark.parametrize(
    "arguments", [["--device", "cpu"], ["--device", "cpu", "--tiny"], ["--device", "cuda:0"]]
)
def test_without_a_gpu_the_command_says_so_in_one_sentence(arguments: list[str]) -> None:
    done = run(*arguments, TRITON_INTERPRET="0", CUDA_VISIBLE_DEVICES="")

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("kernel: error: ")
    assert done.stderr.count("\n") == 1
