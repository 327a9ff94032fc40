"""From answers to POPE's numbers: three published ways to read an answer, one set of metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eval.stats.intervals import Array, ratio


def parse_opera(answer: str) -> str:
    """Read an answer as OPERA and EAH do: "no" iff some word of it is a negation.

    Full stops and commas are dropped from the whole text, which is then split at single spaces.
    Source: `recorder` in their `pope_eval.py`.
    """
    words = answer.replace(".", "").replace(",", "").split(" ")
    negated = any(word in ("No", "not", "no", "NO") or word.endswith("n't") for word in words)
    return "no" if negated else "yes"


def parse_pope(answer: str) -> str:
    """Read an answer as POPE and LLaVA do: "no" iff the first sentence has No, not or no.

    Source: POPE's `evaluate.py`, LLaVA's `eval_pope.py`.
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no") for word in words) else "yes"


def parse_strict(answer: str) -> str | None:
    """Read an answer that says yes or no, and nothing else: None where it says neither.

    The first word decides if it is yes or no; else the one of the two that occurs alone.
    """
    words = re.findall(r"[a-z']+", answer.lower())
    if words and words[0] in ("yes", "no"):
        return str(words[0])
    said = {"yes", "no"} & set(words)
    return said.pop() if len(said) == 1 else None


PARSERS: Final[dict[str, Callable[[str], str | None]]] = {
    "opera": parse_opera,
    "pope": parse_pope,
    "strict": parse_strict,
}


@dataclass(frozen=True, slots=True)
class PopeMetrics:
    """POPE's metrics as fractions; "yes" is the positive class.

    An unknown answer is wrong: it counts against accuracy and recall, and is no predicted yes.
    A ratio whose denominator is zero is 0.

    Attributes:
        total: Number of questions.
        tp: Label yes, predicted yes.
        fp: Label no, predicted yes.
        tn: Label no, predicted no.
        fn: Label yes, predicted no.
        unknown: Answers that say neither.
        accuracy: (tp + tn) / total.
        precision: tp / (tp + fp).
        recall: tp / number of labels yes.
        f1: Harmonic mean of precision and recall.
        yes_ratio: Share of *predictions* that are yes.
        unknown_rate: unknown / total.
    """

    total: int
    tp: int
    fp: int
    tn: int
    fn: int
    unknown: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_ratio: float
    unknown_rate: float

    def as_dict(self) -> dict[str, float]:
        """Return the metrics for a JSON file."""
        return asdict(self)


# The metrics that are ratios, in the order of PopeMetrics and of `ratios`.
RATIOS: Final = ("accuracy", "precision", "recall", "f1", "yes_ratio", "unknown_rate")


def tally(predictions: Sequence[str | None], labels: Sequence[str]) -> NDArray[np.int64]:
    """Return what each answer adds to the counts, shape (questions, 7).

    The columns are total, tp, fp, tn, fn and unknown, as in PopeMetrics, then the labels yes.

    Args:
        predictions: "yes", "no", or None for unknown.
        labels: "yes" or "no", one per prediction.
    """
    pairs = list(zip(predictions, labels, strict=True))
    cells = [("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes")]
    columns = [
        [True] * len(pairs),
        *([pair == cell for pair in pairs] for cell in cells),
        [prediction is None for prediction in predictions],
        [label == "yes" for label in labels],
    ]
    return np.array(columns, dtype=np.int64).T


def ratios(sums: NDArray[Any]) -> Array:
    """Compute the metrics that are ratios from summed rows of `tally`, shape (7, ...) -> (6, ...).

    The trailing axes are whatever is computed at once: question types, resamples.
    """
    total, tp, fp, tn, _, unknown, positives = sums
    precision, recall = ratio(tp, tp + fp), ratio(tp, positives)
    return np.stack(
        [
            ratio(tp + tn, total),
            precision,
            recall,
            ratio(2 * precision * recall, precision + recall),
            ratio(tp + fp, total),
            ratio(unknown, total),
        ]
    )


def score(predictions: Sequence[str | None], labels: Sequence[str]) -> PopeMetrics:
    """Compute the metrics of parsed answers.

    Args:
        predictions: "yes", "no", or None for unknown.
        labels: "yes" or "no", one per prediction.
    """
    sums = tally(predictions, labels).sum(axis=0)
    return PopeMetrics(*sums[:6].tolist(), *ratios(sums).tolist())


def score_answers(answers: Sequence[str], labels: Sequence[str], parser: str) -> PopeMetrics:
    """Parse answers with a named parser and compute the metrics."""
    return score([PARSERS[parser](answer) for answer in answers], labels)
