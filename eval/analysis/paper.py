"""The paper's numbers at its own settings, for comparison with an ablation's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from eah.settings import EAHConfig
from eval.files.answers import BASELINE
from eval.run.arm_settings import read_eah
from models.settings import CONFIGS, read_yaml

SECTION: Final = "ablations"
# Metrics that configs/paper.yaml has under other names.
KEYS: Final = {"CHAIRs": "chair_s", "CHAIRi": "chair_i"}
_OTHER_KEYS: Final = ("arm", "parts", "settings", "source")


@dataclass(frozen=True, slots=True)
class PaperNumbers:
    """Numbers of one arm.

    Attributes:
        settings: Settings of EAH that they are of, read; None for the baseline.
        parts: The benchmark's parts that they are the mean over; empty where it has none.
        percent: Numbers in percent, by the names of configs/paper.yaml.
        source: Where they are from.
    """

    settings: dict[str, Any] | None
    parts: frozenset[str]
    percent: dict[str, float]
    source: str

    def is_of(self, config: EAHConfig | None) -> bool:
        """Return whether they are of an arm with some settings of EAH; None for the baseline."""
        if self.settings is None or config is None:
            return self.settings is None and config is None
        return config == EAHConfig.preset("paper", **self.settings)


class PaperValue(NamedTuple):
    """One number in percent, with its source."""

    value: float
    source: str


def paper_numbers(benchmark: str, model: str) -> list[PaperNumbers]:
    """Return what the paper reports of a model on a benchmark; empty where nothing is known."""
    section = read_yaml(CONFIGS / "paper.yaml").get(SECTION, {})
    found = []
    for entry in section.get(benchmark, {}).get(model, []):
        written = entry.get("settings", {})
        settings = {key: read_eah(key, str(value)) for key, value in written.items()}
        found.append(
            PaperNumbers(
                None if entry["arm"] == BASELINE else settings,
                frozenset(entry.get("parts", ())),
                {key: float(value) for key, value in entry.items() if key not in _OTHER_KEYS},
                entry["source"],
            )
        )
    return found


def paper_value(
    numbers: Sequence[PaperNumbers], metric: str, parts: Sequence[str], config: EAHConfig | None
) -> PaperValue | None:
    """Return the paper's number; None where it is unknown.

    Args:
        numbers: Of the model on the benchmark.
        metric: Its name.
        parts: The benchmark's parts that the measured number is the mean over.
        config: EAH's settings of the measured arm; None for the baseline.
    """
    asked = frozenset(filter(None, parts))
    for one in numbers:
        value = one.percent.get(KEYS.get(metric, metric))
        if value is not None and one.parts == asked and one.is_of(config):
            return PaperValue(value, one.source)
    return None
