"""Repeats of a run: the same command with the seeds 0, 1, ..., and checks that they are valid.

Each repeat is the run that `--seed` would make, in its run folder. A seed matters if answers are
sampled, if an arm's decoding method draws noise, or if it chooses the pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from eval.errors import EvaluationError
from eval.files.answers import Item
from eval.run.arms import arms_of
from eval.run.processes import this_process
from eval.run.settings import DEFAULT_SEED, RunSettings

Settings = TypeVar("Settings", bound=RunSettings)


def check_seed(settings: RunSettings, given: Mapping[str, Any]) -> None:
    """Refuse --seed with --repeats, which sets the seeds.

    Args:
        settings: Settings of the command.
        given: The flags that were given.
    Raises:
        EvaluationError: If both are given.
    """
    if settings.repeats > 1 and ("seed" in given or settings.seed != DEFAULT_SEED):
        raise EvaluationError(
            f"--repeats {settings.repeats} uses the seeds 0 to {settings.repeats - 1}, so --seed "
            f"{settings.seed} has no effect; pass one of them"
        )


def settings_by_repeat(settings: Settings) -> list[Settings]:
    """Return the settings of each repeat, which is a separate run.

    Raises:
        EvaluationError: If several processes share the runs.
    """
    if not this_process().is_alone:
        raise EvaluationError(
            f"--repeats {settings.repeats} needs a single process; with several, run --seed 0, then "
            "--seed 1, ..., and this command in one process at the end: it reuses the answers"
        )
    return [replace(settings, repeats=1, seed=seed, json=None) for seed in range(settings.repeats)]


def check_repeats_differ(each: Sequence[RunSettings], items: Sequence[Sequence[Item]]) -> None:
    """Refuse repeats that would all have the same answers.

    Args:
        each: Settings of each repeat.
        items: Questions of each repeat.
    Raises:
        EvaluationError: If the seed affects nothing.
    """
    first, other = (arms_of(settings) for settings in each[:2])
    if each[0].sample or first != other:
        return
    if all(set(of) == set(items[0]) for of in items):
        names = ", ".join(arm.name for arm in first)
        raise EvaluationError(
            f"--repeats {len(each)} would have the same answers {len(each)} times: no arm draws "
            f"noise ({names}), and all seeds have the same questions about the same pictures; add "
            "--sample or an arm such as vcd, or, for captions, choose from more pictures than "
            "--num-images (without --image-ids)"
        )
