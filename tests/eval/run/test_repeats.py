"""When `--repeats` is refused: where it would have the same answers, or has a seed beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.run.repeats import check_repeats_differ, check_seed, settings_by_repeat
from eval.run.settings import RunSettings

ITEMS = [Item(at, f"{at}.jpg", "?") for at in range(4)]


def test_each_repeat_is_the_run_of_its_seed() -> None:
    settings = RunSettings(repeats=3, sample=True, json=Path("out.json"))

    assert settings_by_repeat(settings) == [
        RunSettings(seed=seed, sample=True) for seed in range(3)
    ]


def test_less_than_one_repeat_is_refused() -> None:
    with pytest.raises(EvaluationError, match="repeats=0, but at least 1 is needed"):
        RunSettings(repeats=0)


def test_the_same_answers_are_refused() -> None:
    each = settings_by_repeat(RunSettings(repeats=2))
    reversed_order = [ITEMS, ITEMS[::-1]]

    with pytest.raises(
        EvaluationError,
        match=r"--repeats 2 would have the same answers 2 times: no arm draws noise \(baseline, "
        r"eah\).*; add --sample or an arm such as vcd",
    ):
        check_repeats_differ(each, reversed_order)


@pytest.mark.parametrize(
    "settings",
    [
        RunSettings(repeats=2, sample=True),
        RunSettings(repeats=2, method=("baseline", "vcd")),
        RunSettings(repeats=2, method=("vcd+eah",)),
    ],
    ids=["sampling", "noise", "noise under EAH"],
)
def test_sampling_and_noise_are_not(settings: RunSettings) -> None:
    check_repeats_differ(settings_by_repeat(settings), [ITEMS, ITEMS])


def test_noise_of_one_seed_is_the_same_noise() -> None:
    settings = RunSettings(repeats=2, method=("baseline", "vcd@seed=5"))

    with pytest.raises(EvaluationError, match="no arm draws noise"):
        check_repeats_differ(settings_by_repeat(settings), [ITEMS, ITEMS])


def test_other_pictures_are_not() -> None:
    check_repeats_differ(settings_by_repeat(RunSettings(repeats=2)), [ITEMS[:3], ITEMS[1:]])


@pytest.mark.parametrize(
    ("settings", "given"),
    [(RunSettings(repeats=2, seed=3), {}), (RunSettings(repeats=2), {"seed": 42})],
)
def test_a_seed_beside_repeats_is_refused(settings: RunSettings, given: dict[str, int]) -> None:
    with pytest.raises(
        EvaluationError,
        match=f"--repeats 2 uses the seeds 0 to 1, so --seed {settings.seed} has no effect",
    ):
        check_seed(settings, given)


def test_a_seed_alone_is_not() -> None:
    check_seed(RunSettings(seed=3), {"seed": 3})
    check_seed(RunSettings(repeats=2), {})


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(EvaluationError, match="--repeats 2 needs one process"):
        settings_by_repeat(RunSettings(repeats=2))
