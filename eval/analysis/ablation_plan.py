"""Which arms an ablation needs: from `--ablate` to recorded names, one setting of EAH at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from eah.errors import nearest
from eah.settings import EAHConfig
from eval.errors import EvaluationError
from eval.files.answers import BASELINE
from eval.run.arm_settings import EAH, EAH_SETTINGS
from eval.run.arms import MOST_ARMS, Arm, arms_of
from eval.run.settings import RunSettings

# For figures, with the unit; another setting has its own name.
LABELS: Final = {
    "layers": "layer (index, from 0)",
    "threshold": "threshold (mean attention)",
    "receivers": "receiving heads (number)",
    "min_density": "gamma (share of image tokens)",
    "head": "shared head (index, from 0)",
}


@dataclass(frozen=True, slots=True)
class PlannedAxis:
    """Values of one setting.

    Attributes:
        setting: Its name.
        arms: By value as it was written, in order; no arm is duplicated.
    """

    setting: str
    arms: Mapping[str, Arm]

    @property
    def label(self) -> str:
        """Name for a figure, with the unit."""
        return LABELS.get(self.setting, self.setting.replace("_", " "))


@dataclass(frozen=True, slots=True)
class AblationPlan:
    """Arms of an ablation.

    Attributes:
        eah: EAH as flags and the model's config have it; each other arm differs in one setting.
        axes: By setting.
    """

    eah: Arm
    axes: tuple[PlannedAxis, ...]

    def arms(self) -> tuple[str, ...]:
        """Return the recorded names of all arms, the baseline and EAH first, each once."""
        tried = [arm.name for axis in self.axes for arm in axis.arms.values()]
        return tuple(dict.fromkeys([BASELINE, self.eah.name, *tried]))

    def configs(self) -> tuple[EAHConfig, ...]:
        """Return EAH's settings of every arm."""
        arms = [self.eah, *(arm for axis in self.axes for arm in axis.arms.values())]
        return tuple(arm.eah for arm in arms if arm.eah is not None)

    def only(self, arm: str) -> AblationPlan:
        """Return the plan of the baseline, EAH and one other arm, on whichever axis."""
        axes = []
        for axis in self.axes:
            kept = {value: one for value, one in axis.arms.items() if one.name == arm}
            axes += [replace(axis, arms=kept)] if kept else []
        return replace(self, axes=tuple(axes))


def plan_ablation(texts: Sequence[str], settings: RunSettings) -> AblationPlan:
    """Return the arms of an ablation.

    A value that the arm `eah` already has refers to that arm. Values of one setting that resolve to
    the same arm count once.

    Args:
        texts: Such as ["layers=0,1,2", "receivers=1,2,4"]; one value of layers may be 0-2 or 1+3.
        settings: Of the command, which hold EAH's other settings.
    Raises:
        EvaluationError: If a text is not written so, or a setting is unknown or not allowed.
    """
    eah = _arm(EAH, settings)
    axes: dict[str, PlannedAxis] = {}
    for text in texts:
        key, equals, written = text.partition("=")
        values = [part.strip() for part in written.split(",")]
        if not equals or not all(values):
            raise EvaluationError(
                f"--ablate {text!r}: settings are written KEY=V1,V2 (layers=0,1,2)"
            )
        key = key.strip().replace("-", "_")
        if key not in EAH_SETTINGS:
            raise EvaluationError(
                f"--ablate {key!r} is not a setting of EAH: {nearest(key, EAH_SETTINGS)}"
            )
        if key in axes:
            raise EvaluationError(f"--ablate {key}: given twice; put all values into one list")
        if len(values) > MOST_ARMS:
            raise EvaluationError(
                f"--ablate {key} has {len(values)} values, but a run has at most {MOST_ARMS} "
                "arms; try fewer"
            )
        axes[key] = _axis(key, values, settings)
    return AblationPlan(eah, tuple(axes.values()))


def _axis(key: str, values: Sequence[str], settings: RunSettings) -> PlannedAxis:
    """Return the arms of some values; the first value of an arm names it."""
    by_name: dict[str, tuple[str, Arm]] = {}
    for value in values:
        arm = _arm(f"{EAH}@{key}={value}", settings)
        by_name.setdefault(arm.name, (value, arm))
    return PlannedAxis(key, dict(by_name.values()))


def _arm(name: str, settings: RunSettings) -> Arm:
    """Return an arm with EAH's settings of a command."""
    (arm,) = arms_of(replace(settings, method=(name,), sweep=(), reference=None))
    return arm
