"""Summarise what EAH did in each layer during a run, from the findings stored with the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Final

from eval.files.answers import Answer, Finding

HEADER: Final = ("layer", "prompts", "chosen heads", "sinks of image tokens", "saturated")
SHOWN: Final = 3  # heads


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """What EAH did in one layer, over all answers of an arm.

    Attributes:
        layer: Layer index, from 0.
        prompts: Prompts that were answered under EAH.
        heads: Number of prompts in which each head was chosen, most frequent first; "none" if no
            head qualified.
        mean_sinks: Mean number of visual sinks of the chosen head.
        mean_image_tokens: Mean number of image tokens.
        saturated: Prompts in which every image token exceeds the threshold in every head.
    """

    layer: int
    prompts: int
    heads: dict[str, int]
    mean_sinks: float
    mean_image_tokens: float
    saturated: int

    def as_dict(self) -> dict[str, Any]:
        """Return the summary for metrics.json."""
        return asdict(self)

    def cells(self) -> list[str]:
        """Return the summary as the cells of a table row; HEADER names the columns."""
        shares = [
            f"{head}: {100 * count / self.prompts:.0f} %" for head, count in self.heads.items()
        ]
        more = f", {len(shares) - SHOWN} more" if len(shares) > SHOWN else ""
        return [
            str(self.layer),
            str(self.prompts),
            ", ".join(shares[:SHOWN]) + more,
            f"{self.mean_sinks:.1f} of {self.mean_image_tokens:.0f}",
            str(self.saturated),
        ]


def layer_summaries(answers: Iterable[Answer]) -> list[LayerSummary]:
    """Summarise what EAH found in the answers of one arm, layer by layer."""
    by_layer: dict[int, list[Finding]] = {}
    for answer in answers:
        for finding in answer.findings:
            by_layer.setdefault(finding.layer, []).append(finding)
    return [
        LayerSummary(
            layer,
            len(found),
            dict(Counter("none" if f.head is None else str(f.head) for f in found).most_common()),
            fmean(f.sinks for f in found),
            fmean(f.image_tokens for f in found),
            sum(f.saturated for f in found),
        )
        for layer, found in sorted(by_layer.items())
    ]
