"""Reports with known numbers: layer 1 head 3 is dense, and its density goes with the answers."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np
from PIL import Image

from eval.analysis.ablation import Ablation, Axis, Point
from eval.analysis.claim import Claim, LayerClaim
from eval.analysis.maps import HeadMap
from eval.analysis.picture import LayerView, PictureView
from eval.analysis.report import SinkReport
from eval.stats.intervals import Interval

DENSE = 0.61
NONE = Interval(nan, nan, nan)


class SaidClaim(Claim):
    """A claim with a sentence, whatever the numbers say."""

    def sentence(self) -> str:
        return f"{self.model}: what the claim's sentence says."


def head_map(
    model: str = "tiny-llava",
    layers: int = 4,
    heads: int = 4,
    thresholds: Sequence[float] = (0.002, 0.004),
    gammas: Sequence[float] = (0.15, 0.2),
    missing: Sequence[tuple[int, int]] = (),
) -> HeadMap:
    """Return a map in which layer 1 head 3 is dense; heads named in `missing` don't exist."""
    random = np.random.default_rng(0)
    density = random.uniform(0, 0.14, (len(thresholds), layers, heads))
    density[:, min(1, layers - 1), min(3, heads - 1)] = DENSE
    attention = random.uniform(0.05, 0.6, (layers, heads))
    densest = random.dirichlet(np.ones(heads), (len(thresholds), layers))
    for layer, head in missing:
        density[:, layer, head] = attention[layer, head] = densest[:, layer, head] = nan
    exists = ~np.isnan(density)
    dense = np.stack([(density >= gamma).sum(2) / exists.sum(2) for gamma in gammas], axis=1)
    return HeadMap(
        model, tuple(range(layers)), tuple(thresholds), "attention", tuple(gammas), 40, 240, 64.0,
        density, attention, densest, dense, np.zeros((len(thresholds), layers)),
    )  # fmt: skip


def claim(model: str = "tiny-llava", layers: int = 4, planted: Sequence[int] = (1,)) -> Claim:
    """Return a claim with differences in the planted layers and nan in the last of many."""
    random = np.random.default_rng(1)
    found = []
    for layer in range(layers):
        high = float(random.uniform(0.1, 0.4))
        gap = 0.12 if layer in planted else float(random.uniform(-0.02, 0.02))
        p_value = 0.0004 if layer in planted else float(random.uniform(0.2, 1))
        found.append(
            LayerClaim(
                layer,
                Interval(high, high - 0.03, high + 0.03),
                Interval(high - gap, high - gap - 0.04, high - gap + 0.04),
                Interval(gap, gap - 0.03, gap + 0.03),
                p_value,
                min(1.0, p_value * layers),
            )
        )
    if layers > 2:
        same = Interval(0.2, nan, nan)
        found[-1] = LayerClaim(layers - 1, same, same, Interval(0.0, nan, nan), nan, nan)
    return SaidClaim(
        model, "a wrong answer", "threshold 0.002 (mean attention)", 40, 200, 40, tuple(found)
    )


def ablation(model: str = "tiny-llava", metric: str = "accuracy, %") -> Ablation:
    """Return an ablation of three settings; the paper has values for one."""
    higher = metric.startswith("accuracy")

    def axis(setting: str, label: str, values: Sequence[str], paper: dict[str, float]) -> Axis:
        random = np.random.default_rng(len(values))
        points = []
        for value in values:
            middle = float(random.uniform(0.8, 0.88))
            points.append(
                Point(
                    f"eah@{setting}={value}",
                    value,
                    Interval(middle, middle - 0.02, middle + 0.015),
                    Interval(middle - 0.84, middle - 0.86, middle - 0.82),
                    paper.get(value),
                )
            )
        return Axis(setting, label, tuple(points))

    return Ablation(
        model, metric, True, higher, Interval(0.84, 0.825, 0.855), 84.9, 40,
        (
            axis("layers", "layer (index, from 0)", ("0", "1", "2", "3"), {"1": 86.0}),
            axis("threshold", "threshold (mean attention)", ("0.001", "0.002", "0.004"), {}),
            axis("receivers", "receiving heads (number)", [str(n) for n in range(1, 33)], {}),
        ),
        "EAH paper; 2nd",
    )  # fmt: skip


def picture(
    model: str = "tiny-llava",
    image: str = "COCO_val2014_000000000042.jpg",
    question: str = "Is there a red circle in the image?",
    layers: int = 4,
    heads: int = 4,
    grid: tuple[int, int] | None = (8, 8),
    tokens: int = 64,
) -> PictureView:
    """Return a picture whose layer 1 looks at its upper left corner, most of all in head 3."""
    random = np.random.default_rng(2)
    views = []
    for layer in range(layers):
        before = random.gamma(0.4, 0.004, (heads, tokens)).astype(np.float32)
        before[:, 0] = 0.3
        if layer == 1:
            before[3 % heads] = 0.004
            before[3 % heads, : tokens // 8] = 0.03
        after = before.copy()
        if layer >= 1:
            after[:] = before[3 % heads] if layer == 1 else before * np.float32(1.1)
        shared = 3 % heads if layer == 1 else None
        views.append(
            LayerView(layer, before, after, before > 0.002, after > 0.002, 3 % heads, shared)
        )
    seen = Image.new("RGB", (336, 336), (90, 140, 200))
    seen.paste((200, 40, 40), (20, 20, 150, 150))
    seen.paste((240, 220, 60), (200, 180, 320, 320))
    return PictureView(model, image, question, seen, grid, tuple(views), min(1, layers - 1))


def report(**parts: object) -> SinkReport:
    """Return a report of one small model with every part, or with the parts given."""
    whole: dict[str, object] = {
        "title": "Vision sinks of tiny-llava",
        "maps": [head_map()],
        "claims": [claim()],
        "ablations": [ablation(), ablation(metric="CHAIRs, %")],
        "pictures": [picture()],
        "facts": {"model": "tiny-llava", "threshold": "0.002 (mean attention)"},
        "notes": ["All values are of the same pictures."],
    }
    return SinkReport(**{**whole, **parts})  # type: ignore[arg-type]  # fields by name
