"""AMBER's discriminative half: yes/no questions of existence, attributes and relations.

The positive class is "no": what counts is whether a hallucination is denied. Source: AMBER's
`inference.py` (arXiv 2311.07397).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import fsum
from typing import ClassVar, Final

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.output.table import fit
from eval.tasks.amber.folder import (
    ANNOTATIONS,
    CAPTIONS,
    FOLDER,
    QUESTIONS,
    query_file,
    read_objects,
    read_queries,
)
from eval.tasks.base import Appendix, TaskProtocol
from eval.tasks.yes_no.parts import PartsTask
from eval.tasks.yes_no.said import Matching
from eval.tasks.yes_no.task import NO

# The parts, by the types that annotations.json has.
PARTS: Final = {
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
QUESTIONS_BY_PART: Final = {
    "existence": 4924, "state": 4764, "number": 2072, "action": 792, "relation": 1664,
}  # fmt: skip
ATTRIBUTE: Final = ("state", "number", "action")
# The sections that AMBER prints, by name: their parts, and how many of its counters they add up.
SECTIONS: Final = {
    "all": (tuple(dict.fromkeys(PARTS.values())), 1),
    "existence": (("existence",), 1),
    "attribute": (ATTRIBUTE, len(ATTRIBUTE)),
    **{name: ((name,), 1) for name in (*ATTRIBUTE, "relation")},
}
START: Final = 0.001  # of each of AMBER's counters that it divides by
# What it adds to the denominator of F1: another number for existence, by a slip.
F1_START: Final = {name: 0.001 if name == "existence" else 0.0001 for name in SECTIONS}


class AmberDiscriminative(PartsTask):
    """AMBER's yes/no questions; `--data-path` holds AMBER_1.jpg and so on."""

    name = "amber-discriminative"
    title = "AMBER, yes/no questions"
    pictures = "data/AMBER/image"
    fetched_by = "amber"
    scorer = "AMBER's inference.py"
    positive = NO
    pooled = True
    leave_out = ()
    parts = SECTIONS["all"][0]
    presets: ClassVar[Mapping[str, Sequence[str]]] = {"attribute": ATTRIBUTE}
    place = FOLDER
    expected = QUESTIONS_BY_PART
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = {
        # AMBER adds nothing to a question, and takes "Yes" and "No" alone.
        **{("", name): TaskProtocol(10, parser="exact") for name in ("opera", "official", "chat")},
        # The request of LLaVA's scripts, and that of VLMEvalKit, with its parser.
        ("llava-1.5", "official"): TaskProtocol(
            10, suffix="\nAnswer the question using a single word or phrase.", parser="exact"
        ),
        ("", "chat-short"): TaskProtocol(10, suffix="\nPlease answer yes or no.", parser="word"),
    }

    @property
    def matching(self) -> Matching:
        """Ids from 1 to 1004 are captions, which may stand in the same file of answers."""
        folder = self.folder()
        there = query_file(folder, CAPTIONS).is_file()
        captions = [item.id for item in read_queries(folder, CAPTIONS)] if there else []
        return replace(super().matching, ignored=frozenset(captions))

    def items(self) -> list[Item]:
        """Return the questions of the parts that are asked."""
        folder = self.folder()
        known = {row.get("id"): row for row in read_objects(folder / ANNOTATIONS)}
        found = []
        for item in read_queries(folder, QUESTIONS):
            row = known.get(item.id, {})
            part, label = PARTS.get(str(row.get("type"))), row.get("truth")
            if part is None or label not in ("yes", "no"):
                raise EvaluationError(
                    f"{folder / ANNOTATIONS} has {row!r:.80} for question {item.id}; a known type "
                    "and truth, yes or no, are needed: get both files of one version of AMBER"
                )
            found.append(replace(item, label=label, part=part))
        return self.chosen(found)

    def beside(
        self, arms: Mapping[str, Sequence[Answer]], references: Mapping[str, Sequence[str]]
    ) -> Appendix:
        """Return the numbers as AMBER's script prints them, beside the probabilities."""
        first = super().beside(arms, references)
        printed = {arm: self.printed(answers) for arm, answers in arms.items()}
        rows = [
            [arm, section, *(f"{number:.1f}" for number in numbers.values())]
            for arm, of in printed.items()
            for section, numbers in of.items()
        ]
        header = ["arm", "AMBER prints", "Accuracy", "Precision", "Recall", "F1"]
        text = "\n\n".join(filter(None, [first.text, fit(header, rows, names=list(arms), keys=2)]))
        return Appendix(text, {**first.content, "reference": printed})

    def printed(self, answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
        """Return the numbers of each section that is answered as AMBER's script prints them.

        Each is 100 times a ratio, rounded to one place; F1 is of the rounded numbers.
        """
        found = {}
        for section, (parts, counters) in SECTIONS.items():
            of = [answer for answer in answers if answer.item.part in parts]
            if not of:
                continue
            start = fsum([START] * counters)
            total, tp, _, tn, *_ = self.counts(of)
            denied = sum(self.read(answer) == NO for answer in of)
            negatives = sum(answer.item.label == NO for answer in of)
            accuracy = round(100 * (tp + tn) / (total + start), 1)
            precision = round(100 * tp / (denied + start), 1)
            recall = round(100 * tp / (negatives + start), 1)
            one, other = precision / 100, recall / 100
            f1 = round(200 * one * other / (one + other + F1_START[section]), 1)
            found[section] = dict(zip(("accuracy", "precision", "recall", "f1"),
                                      (accuracy, precision, recall, f1), strict=True))  # fmt: skip
        return found
