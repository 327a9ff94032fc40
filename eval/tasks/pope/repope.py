"""RePOPE: POPE's labels, checked and corrected by people (arXiv 2504.15707).

Its question ids are those of POPE's current 3,000 questions. Ids in OPERA's and EAH's files differ,
so questions are matched by picture and text within each part, never by id.
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
# Where scripts/data/download.sh puts them.
LABELS_FOLDER: Final = ROOT / "data/COCO/repope"
Labels = Mapping[str, Mapping[tuple[str, str], str]]
"""Labels by part, then by picture and text."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """The questions of one part under the corrected labels.

    Attributes:
        asked: Questions that were asked.
        kept: Asked questions with a label in RePOPE.
        dropped: Asked questions without one: ambiguous, or not among POPE's current questions.
        yes_to_no: Kept questions whose label changed from "yes" to "no".
        no_to_yes: Kept questions whose label changed from "no" to "yes".
        questions: Questions of RePOPE.
        unanswered: Questions of RePOPE that were not asked.
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
        folder: Folder of `coco_repope_<type>.json`; None for that of scripts/data/download.sh.
        parts: POPE's types.
    Raises:
        EvaluationError: If a file is missing, can't be read, or contradicts itself.
    """
    labels: dict[str, dict[tuple[str, str], str]] = {}
    for part in parts:
        path = (folder or LABELS_FOLDER) / f"coco_repope_{part}.json"
        if not path.is_file():
            raise EvaluationError(
                f"{path} does not exist; pass RePOPE's folder as --labels-path (bash "
                "scripts/data/download.sh --only repope fetches it)"
            )
        known = labels.setdefault(part, {})
        for item in read_questions(path, part):
            if known.setdefault(_key(item), item.label) != item.label:
                raise EvaluationError(
                    f"{path} has two labels for {item.question!r} about {item.image}; download the "
                    "file again"
                )
    return labels


def relabel(arms: Mapping[str, Sequence[Answer]], labels: Labels) -> Relabelled:
    """Return the answers to questions that have a corrected label, with that label.

    Raises:
        EvaluationError: If no question has such a label.
    """
    some = [answer.item for answer in next(iter(arms.values()))]
    found = {
        arm: [replace(one, item=replace(one.item, label=label))
              for one in answers if (label := _label(one.item, labels)) is not None]
        for arm, answers in arms.items()
    }  # fmt: skip
    if not any(found.values()):
        raise EvaluationError(
            f"none of the {len(some)} questions has the picture and text of one of RePOPE's; use "
            "--labels repope only for POPE on COCO"
        )
    parts = list(dict.fromkeys(item.part for item in some))
    covered = {part: _coverage(part, some, labels) for part in parts}
    notes = [
        f"{part}: {one.kept} of {one.asked} questions kept, {one.dropped} dropped; labels changed "
        f"yes -> no {one.yes_to_no}, no -> yes {one.no_to_yes};\n"
        f"  {one.unanswered} of RePOPE's {one.questions} questions have no answer here"
        for part, one in covered.items()
    ]
    notes.append("dropped: ambiguous, or not among POPE's current questions; matched by picture "
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
    # LLaVA's copy of POPE has a request after the question.
    return picture_key(item.image), words(item.question.partition("?")[0])
