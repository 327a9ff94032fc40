"""RePOPE: POPE's labels, checked by people and corrected (arXiv 2504.15707).

Its files number questions as POPE's present 3,000 do. OPERA's and EAH's files number others, so
questions are joined by picture and text, part by part, and never by id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.tasks.base import Relabelled
from eval.tasks.pope.questions import read_questions
from eval.tasks.yes_no.identity import picture_key, words
from models.settings import ROOT

REPOPE: Final = "repope"
LABEL_SETS: Final = (REPOPE,)
# As scripts/download_data.sh puts them.
LABELS_FOLDER: Final = ROOT / "data/COCO/repope"
Labels = Mapping[str, Mapping[tuple[str, str], str]]
"""Labels by part, then by picture and text."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What became of one part's questions.

    Attributes:
        asked: Questions that were asked.
        kept: Those that RePOPE has a label for.
        dropped: Those that it has none for: ambiguous, or not among POPE's present questions.
        yes_to_no: Kept ones whose label is "no" now.
        no_to_yes: Kept ones whose label is "yes" now.
        questions: Questions that RePOPE has.
        unanswered: Those of them that were not asked.
    """

    asked: int
    kept: int
    dropped: int
    yes_to_no: int
    no_to_yes: int
    questions: int
    unanswered: int


def read_labels(folder: Path | None, parts: Iterable[str]) -> Labels:
    """Read the corrected labels of some parts.

    Args:
        folder: Folder of `coco_repope_<type>.json`; None for the place of download_data.sh.
        parts: POPE's types.
    Raises:
        EvaluationError: If a file is missing or can't be read, or contradicts itself.
    """
    labels: dict[str, dict[tuple[str, str], str]] = {}
    for part in parts:
        path = (folder or LABELS_FOLDER) / f"coco_repope_{part}.json"
        if not path.is_file():
            raise EvaluationError(
                f"{path} does not exist; pass RePOPE's folder as --labels-path (bash "
                "scripts/download_data.sh --only repope fetches it)"
            )
        known = labels.setdefault(part, {})
        for item in read_questions(path, part):
            if known.setdefault(_key(item), item.label) != item.label:
                raise EvaluationError(
                    f"{path} has two labels for {item.question!r} about {item.image}; get the file "
                    "again"
                )
    return labels


def relabel(arms: Mapping[str, Sequence[Answer]], labels: Labels) -> Relabelled:
    """Return the answers to questions that have a corrected label, with that label.

    Raises:
        EvaluationError: If no question has one.
    """
    some = [answer.item for answer in next(iter(arms.values()))]
    found = {
        arm: [replace(one, item=replace(one.item, label=label))
              for one in answers if (label := _label(one.item, labels)) is not None]
        for arm, answers in arms.items()
    }  # fmt: skip
    if not any(found.values()):
        raise EvaluationError(
            f"none of the {len(some)} questions is among RePOPE's, by picture and text; "
            "--labels repope is for COCO's POPE"
        )
    parts = list(dict.fromkeys(item.part for item in some))
    covered = {part: _coverage(part, some, labels) for part in parts}
    notes = [
        f"{part}: {one.kept} of {one.asked} questions kept, {one.dropped} dropped; labels changed "
        f"yes -> no {one.yes_to_no}, no -> yes {one.no_to_yes};\n"
        f"  {one.unanswered} of RePOPE's {one.questions} questions have no answer here"
        for part, one in covered.items()
    ]
    notes.append("dropped: ambiguous, or not among POPE's present questions; joined by picture "
                 "and text")  # fmt: skip
    content: dict[str, Any] = {"coverage": {part: asdict(one) for part, one in covered.items()}}
    return Relabelled(REPOPE, "RePOPE (corrected labels, the same answers)", found, notes, content)


def _coverage(part: str, items: Sequence[Item], labels: Labels) -> Coverage:
    asked = [item for item in items if item.part == part]
    pairs = Counter((item.label, _label(item, labels)) for item in asked)
    dropped = sum(count for (_, label), count in pairs.items() if label is None)
    known = labels.get(part, {})
    return Coverage(
        asked=len(asked),
        kept=len(asked) - dropped,
        dropped=dropped,
        yes_to_no=pairs["yes", "no"],
        no_to_yes=pairs["no", "yes"],
        questions=len(known),
        unanswered=len(known.keys() - {_key(item) for item in asked}),
    )


def _label(item: Item, labels: Labels) -> str | None:
    return labels.get(item.part, {}).get(_key(item))


def _key(item: Item) -> tuple[str, str]:
    # LLaVA's copy of POPE has a request behind the question.
    return picture_key(item.image), words(item.question.partition("?")[0])
