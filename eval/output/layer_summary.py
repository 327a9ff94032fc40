"""What EAH did in each layer over a run, from what was recorded with the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """What EAH did in one layer over a run.

    Attributes:
        layer: Layer index, from 0.
        prompts: Prompts that were answered under EAH.
        heads: How many prompts each head was chosen in, most first; None where no head had a sink.
        mean_sinks: Mean number of sinks of the chosen head.
        mean_image_tokens: Mean number of image tokens.
        saturated: Prompts in which every image token passes the threshold in every head.
    """

    layer: int
    prompts: int
    heads: dict[str, int]
    mean_sinks: float
    mean_image_tokens: float
    saturated: int

    def as_dict(self) -> Row:
        """Return the summary for metrics.json."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def sentence(self) -> str:
        """Return the summary as a line of text."""
        shares = [
            f"head {head} in {100 * count / self.prompts:.1f} %"
            for head, count in list(self.heads.items())[:3]
            if head != "none"
        ]
        rest = len(self.heads) - len(shares)
        return (
            f"EAH in layer {self.layer}: {', '.join(shares) or 'no head'} of {self.prompts} prompts"
            f"{f' ({rest} more)' if rest else ''}; "
            f"{self.mean_sinks:.1f} sinks of {self.mean_image_tokens:.0f} image tokens on average; "
            f"no sink in {self.heads.get('none', 0)} prompts, saturated in {self.saturated}"
        )


def layer_summaries(rows: Iterable[Row]) -> list[LayerSummary]:
    """Summarise what EAH found, from the recorded answers."""
    by_layer: dict[int, list[Row]] = {}
    for row in rows:
        for found in row.get("eah", []):
            by_layer.setdefault(found["layer"], []).append(found)
    return [
        LayerSummary(
            layer,
            len(found),
            dict(
                Counter(
                    "none" if f["head"] is None else str(f["head"]) for f in found
                ).most_common()
            ),
            fmean(f["sinks"] for f in found),
            fmean(f["image_tokens"] for f in found),
            sum(f["saturated"] for f in found),
        )
        for layer, found in sorted(by_layer.items())
    ]
