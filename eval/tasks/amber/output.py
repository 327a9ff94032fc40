"""Report scored captions besides the shared tables: AMBER's own numbers, and a test of Hal."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from eval.files.answers import Answer
from eval.files.storage import dump_lines
from eval.output.table import WIDTH, fit
from eval.stats.intervals import Array, Interval, McNemar, mcnemar, paired_intervals, ratio
from eval.stats.permutation import holm
from eval.tasks.amber.scoring import ScoredWords

START: Final = 0.001  # initial value of AMBER's denominators, from its metrics.txt
COUNTS: Final = (
    "hallucinated", "mentions", "covered", "truth", "marked", "hallu", "free",
)  # fmt: skip
Scored = Sequence[tuple[Answer, ScoredWords]]


@dataclass(frozen=True, slots=True)
class HalTest:
    """A test of whether two arms have equally many captions without hallucinated words.

    Attributes:
        arm: The arm.
        reference: The arm that it is compared with.
        difference: Difference of Hal.
        words: Difference of the mean length in words.
        test: McNemar's test over captions.
        p_holm: Its p-value, Holm-adjusted for all comparisons of the report.
    """

    arm: str
    reference: str
    difference: Interval
    words: float
    test: McNemar
    p_holm: float

    def as_dict(self) -> dict[str, Any]:
        """Return the test for a JSON file."""
        return {
            "arm": self.arm,
            "reference": self.reference,
            "difference": self.difference.as_dict(),
            "words": self.words,
            "mcnemar": {**self.test.as_dict(), "p_holm": self.p_holm},
        }

    def row(self) -> list[str]:
        """Return the row of a table."""
        return [
            f"{self.arm} - {self.reference}",
            self.difference.points(),
            f"{self.p_holm:.2g}",
            str(self.test.gained),
            str(self.test.lost),
            f"{round(self.words, 1) + 0.0:+.1f}",
        ]


def sums_of(scored: Scored) -> dict[str, int]:
    """Return the sums of AMBER's counts over captions, by name."""
    counts = np.sum([found.counts() for _, found in scored], axis=0).tolist()
    return dict(zip(COUNTS, counts, strict=True))


def reference_numbers(scored: Scored) -> dict[str, float]:
    """Return the numbers as AMBER's `inference.py` prints them: in percent, with one decimal place.

    Its denominators start at 0.001 to avoid division by zero: without a mention, CHAIR is 0.
    """
    sums = sums_of(scored)

    def percent(part: str, whole: float) -> float:
        return sums[part] / (START + whole) * 100

    return {
        "CHAIR": round(percent("hallucinated", sums["mentions"]), 1),
        "Cover": round(percent("covered", sums["truth"]), 1),
        "Hal": round(100 - percent("free", len(scored)), 1),
        "Cog": round(percent("marked", sums["hallu"]), 1),
    }


def reference_table(arms: Mapping[str, Scored]) -> str:
    """Return those numbers as a table, with the mean length in words."""
    rows = []
    for arm, scored in arms.items():
        numbers = reference_numbers(scored)
        rows.append([arm, *map(str, numbers.values()), f"{mean_words(scored):.1f}"])
    table = fit(["arm", *numbers, "mean words"], rows, names=list(arms))
    return f"as AMBER's inference.py prints it, in percent:\n\n{table}"


def mean_words(scored: Scored) -> float:
    """Return the mean length of captions in space-separated words."""
    return float(np.mean([len(answer.text.split()) for answer, _ in scored]))


def hal_tests(arms: Mapping[str, Scored], references: Mapping[str, Sequence[str]]) -> list[HalTest]:
    """Test each arm against those that it is compared with.

    Args:
        arms: Scored captions of the same pictures, by arm.
        references: The arms that each arm is compared with.
    """
    pairs = [(arm, other) for arm, others in references.items() for other in others]
    by_id = {
        arm: {answer.item.id: not found.hallucinated for answer, found in scored}
        for arm, scored in arms.items()
    }
    free = {pair: [[by_id[arm][at] for at in by_id[pair[1]]] for arm in pair] for pair in pairs}
    tests = {pair: mcnemar(theirs, mine) for pair, (mine, theirs) in free.items()}
    adjusted = holm([test.p_value for test in tests.values()])
    return [
        HalTest(
            arm,
            other,
            _difference(*free[arm, other]),
            mean_words(arms[arm]) - mean_words(arms[other]),
            test,
            p_value,
        )
        for ((arm, other), test), p_value in zip(tests.items(), adjusted, strict=True)
    ]


def hal_text(tests: Sequence[HalTest]) -> str:
    """Return the tests as a table with an explanation; empty if there are none."""
    if not tests:
        return ""
    header = ["arm - reference", "Hal (95 %)", "p", "gained", "lost", "mean words"]
    table = fit(header, [test.row() for test in tests])
    adjusted = f", Holm-adjusted for {len(tests)} comparisons" if len(tests) > 1 else ""
    note = (
        "Hal: captions with hallucinated words, in percent; p: McNemar's exact test over captions"
        f"{adjusted}; gained, lost: captions that only the first arm, or only the second, keeps "
        "free of hallucinated words"
    )
    return (
        f"{table}\n\n{textwrap.fill(note, WIDTH, subsequent_indent='  ', break_on_hyphens=False)}"
    )


def caption_lines(scored: Scored) -> str:
    """Return each caption with its scored words, as JSON lines."""
    return dump_lines(
        {
            "id": answer.item.id,
            "image": answer.item.image,
            "response": answer.text,
            "words": len(answer.text.split()),
            **found.as_dict(),
        }
        for answer, found in scored
    )


def responses(scored: Scored) -> str:
    """Return captions in the format that AMBER's `inference.py` reads."""
    rows = [{"id": answer.item.id, "response": answer.text} for answer, _ in scored]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def _difference(mine: Sequence[bool], theirs: Sequence[bool]) -> Interval:
    """Return the difference of Hal, from whether each caption is free of hallucinated words."""
    one, other = ([[1, int(not is_free)] for is_free in free] for free in (theirs, mine))

    def hal(sums: Array) -> Array:
        return ratio(sums[1], sums[0])[None]

    (found,) = paired_intervals(one, other, hal, highest=[1.0])
    return found
