"""From answers to POPE's numbers: three published ways to read an answer, one set of metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final


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


def score(predictions: Sequence[str | None], labels: Sequence[str]) -> PopeMetrics:
    """Compute the metrics of parsed answers.

    Args:
        predictions: "yes", "no", or None for unknown.
        labels: "yes" or "no", one per prediction.
    """
    pairs = list(zip(predictions, labels, strict=True))
    tp, fp = pairs.count(("yes", "yes")), pairs.count(("yes", "no"))
    tn, fn = pairs.count(("no", "no")), pairs.count(("no", "yes"))
    unknown = sum(prediction is None for prediction in predictions)
    total = len(pairs)
    precision = _ratio(tp, tp + fp)
    recall = _ratio(tp, sum(label == "yes" for label in labels))
    return PopeMetrics(
        total=total,
        tp=tp,
        fp=fp,
        tn=tn,
        fn=fn,
        unknown=unknown,
        accuracy=_ratio(tp + tn, total),
        precision=precision,
        recall=recall,
        f1=_ratio(2 * precision * recall, precision + recall),
        yes_ratio=_ratio(tp + fp, total),
        unknown_rate=_ratio(unknown, total),
    )


def score_answers(answers: Sequence[str], labels: Sequence[str], parser: str) -> PopeMetrics:
    """Parse answers with a named parser and compute the metrics."""
    return score([PARSERS[parser](answer) for answer in answers], labels)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0
