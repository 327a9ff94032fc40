"""Read saved captions, also from a file that answers both halves of AMBER."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eval.errors import EvaluationError, some_ids
from eval.files.answers import Item
from eval.files.rows import read_rows
from eval.files.saved import SavedAnswers
from eval.tasks.amber.folder import QUESTIONS, Amber, read_queries
from eval.tasks.yes_no.answers import read_answers
from eval.tasks.yes_no.identity import id_of
from eval.tasks.yes_no.layouts import layout_of, value_of


def read_responses(
    path: Path,
    amber: Amber,
    items: Sequence[Item],
    *,
    answer_key: str | None = None,
    id_key: str | None = None,
    partial: bool = False,
) -> SavedAnswers:
    """Read a file of captions and return them by arm, in the order of the pictures.

    Args:
        path: AMBER's `[{"id": 1, "response": "..."}]` in any order, or what `read_answers` takes.
        amber: AMBER's files.
        items: The pictures to score, the first or all of AMBER's.
        answer_key: Key that holds the caption; None to find it.
        id_key: Key that holds the id; None to find it.
        partial: Whether captions may be missing.
    Raises:
        EvaluationError: If they are missing, doubled, or of no picture of AMBER.
    """
    ids = _ids(path, answer_key, id_key)
    known = list(amber.items)
    if ids - {item.id for item in known} and (amber.folder / QUESTIONS).is_file():
        known += read_queries(amber.folder / QUESTIONS)
    said = [item for item in known if item.id in ids] if ids else list(items)
    if ids and not said:
        raise EvaluationError(
            f"{path} has no caption of AMBER's pictures: its ids are "
            f"{some_ids(sorted(ids, key=str))}, and AMBER's are {items[0].id} to {items[-1].id}; "
            "pass the captions, or name the key of AMBER's id as --id-key"
        )
    found = read_answers(path, said, answer_key=answer_key, id_key=id_key)
    wanted = {item.id for item in items}
    answered = {item.id for item in said} & wanted
    if others := len(said) - len(answered):
        print(f"note: {others} rows of {path.name} are of other questions, and not scored",
              file=sys.stderr)  # fmt: skip
    missing = [item.id for item in items if item.id not in answered]
    if not answered or (missing and not partial):
        raise EvaluationError(
            f"{path} has {len(answered)} of {len(items)} captions, without {some_ids(missing)}; "
            "make the others, too, or pass --partial to score what is there"
        )
    arms = {
        arm: [answer for answer in of if answer.item.id in answered]
        for arm, of in found.arms.items()
    }
    return replace(found, arms=arms)


def _ids(path: Path, answer_key: str | None, id_key: str | None) -> set[int | str]:
    """Return the ids that the rows of a file have."""
    rows = read_rows(path).rows
    if not rows:
        raise EvaluationError(f"{path} holds no captions; pass the file that the model's are in")
    layout = layout_of(path, rows, answer_key, id_key)
    ids = (id_of(value_of(row, layout.id)) for _, row in rows)
    return {one for one in ids if one is not None}
