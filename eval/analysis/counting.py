"""EAH's rule for counting sinks, under one threshold or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from eah.settings import EAHConfig
from eval.errors import EvaluationError


@dataclass(frozen=True, slots=True)
class Counting:
    """What sinks are counted with.

    Attributes:
        config: EAH's settings with each threshold; the first are EAH's own.
    """

    configs: tuple[EAHConfig, ...]

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds, (T,)."""
        return tuple(float(config.threshold or 0) for config in self.configs)

    @property
    def unit(self) -> str:
        """Their unit."""
        return str(self.configs[0].threshold_unit)

    def as_record(self) -> dict[str, Any]:
        """Return the settings that decide the counts, for run.json."""
        own = asdict(self.configs[0])
        kept = {name: own[name] for name in ("rule", "image_span", "vision_tokens")}
        return {**kept, "thresholds": self.thresholds, "unit": self.unit}


def counting_of(config: EAHConfig, thresholds: Sequence[float]) -> Counting:
    """Return what sinks are counted with.

    The densest head is the one with the most sinks, even where EAH's settings name a head or skip
    heads that are not dense enough. Under the rule "released_code" it is none where that is head 0,
    as in the release.

    Args:
        config: EAH's settings.
        thresholds: Further ones, in its unit.
    Raises:
        EvaluationError: If a threshold is named twice.
        EAHConfigError: If one is not allowed.
    """
    plain = replace(config, head=None, min_density=0.0, receivers="all")
    configs = [plain, *(replace(plain, threshold=one) for one in thresholds)]
    if len({one.threshold for one in configs}) < len(configs):
        values = ", ".join(str(one.threshold) for one in configs)
        raise EvaluationError(f"--THRES {values} names a threshold twice; name each once")
    return Counting(tuple(configs))
