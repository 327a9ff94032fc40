"""AMBER's discriminative half: yes/no questions of existence, attributes and relations.

The positive class is "no", since the benchmark measures whether a model denies a hallucination.
Source: AMBER's `inference.py` (arXiv 2311.07397).
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
from eval.tasks.yes_no.answer_rows import Matching
from eval.tasks.yes_no.parts import PartsTask
from eval.tasks.yes_no.task import NO

# Parts of the benchmark by the types in annotations.json.
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
# The sections that AMBER prints, by name: their parts, and the number of counters that they add up.
SECTIONS: Final = {
    "all": (tuple(dict.fromkeys(PARTS.values())), 1),
    "existence": (("existence",), 1),
    "attribute": (ATTRIBUTE, len(ATTRIBUTE)),
    **{name: ((name,), 1) for name in (*ATTRIBUTE, "relation")},
}
START: Final = 0.001  # initial value of each counter that AMBER divides by
# What AMBER adds to the denominator of F1; its script has another number for existence, by mistake.
F1_START: Final = {name: 0.001 if name == "existence" else 0.0001 for name in SECTIONS}


class AmberDiscriminative(PartsTask):
    """AMBER's yes/no questions; `--data-path` contains AMBER_1.jpg and so on."""

    name = "amber-discriminative"
    title = "AMBER, yes/no questions"
    pictures = "data/AMBER/image"
    download_name = "amber"
    scorer = "AMBER's inference.py"
    positive = NO
    pooled = True
    leave_out = ()
    parts = SECTIONS["all"][0]
    presets: ClassVar[Mapping[str, Sequence[str]]] = {"attribute": ATTRIBUTE}
    default_folder = FOLDER
    expected = QUESTIONS_BY_PART
    protocols: ClassVar[Mapping[tuple[str, str], TaskProtocol]] = {
        # AMBER adds nothing to a question and only accepts "Yes" and "No".
        **{("", name): TaskProtocol(10, parser="exact") for name in ("opera", "official", "chat")},
        # The short-answer requests of LLaVA's scripts, and of VLMEvalKit with its parser.
        ("llava-1.5", "official"): TaskProtocol(
            10, suffix="\nAnswer the question using a single word or phrase.", parser="exact"
        ),
        ("", "chat-short"): TaskProtocol(10, suffix="\nPlease answer yes or no.", parser="word"),
    }

    @property
    def matching(self) -> Matching:
        """Rows with ids of captions (1 to 1004) are ignored: a file may answer both halves."""
        folder = self.folder()
        there = query_file(folder, CAPTIONS).is_file()
        captions = [item.id for item in read_queries(folder, CAPTIONS)] if there else []
        return replace(super().matching, ignored=frozenset(captions))

    def items(self) -> list[Item]:
        """Return the questions of the selected parts."""
        folder = self.folder()
        known = {row.get("id"): row for row in read_objects(folder / ANNOTATIONS)}
        found = []
        for item in read_queries(folder, QUESTIONS):
            row = known.get(item.id, {})
            part, label = PARTS.get(str(row.get("type"))), row.get("truth")
            if part is None or label not in ("yes", "no"):
                raise EvaluationError(
                    f"{folder / ANNOTATIONS} has {row!r:.80} for question {item.id}; a known type "
                    "and a truth of yes or no are needed: use files of one version of AMBER"
                )
            found.append(replace(item, label=label, part=part))
        return self.select_parts(found)

    def appendix(
        self, arms: Mapping[str, Sequence[Answer]], references: Mapping[str, Sequence[str]]
    ) -> Appendix:
        """Return the numbers as AMBER's script prints them, after the probabilities."""
        first = super().appendix(arms, references)
        printed = {arm: self.official_numbers(answers) for arm, answers in arms.items()}
        rows = [
            [arm, section, *(f"{number:.1f}" for number in numbers.values())]
            for arm, of in printed.items()
            for section, numbers in of.items()
        ]
        header = ["arm", "section", "Accuracy", "Precision", "Recall", "F1"]
        table = fit(header, rows, names=list(arms), keys=2)
        text = f"as AMBER's inference.py prints it, in percent:\n\n{table}"
        text = "\n\n".join(filter(None, [first.text, text]))
        return Appendix(text, {**first.content, "reference": printed})

    def official_numbers(self, answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
        """Compute the numbers that AMBER's script prints, for each section with answers.

        Each is a percentage, rounded to one decimal place; F1 is computed from rounded numbers.
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
