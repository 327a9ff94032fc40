"""Questions that count together: a group is right if every answer in it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eval.files.answers import Answer


def all_right(
    answers: Sequence[Answer], kind: str, right: Callable[[Answer], bool | None], size: int = 1
) -> tuple[int, int]:
    """Return the number of groups, and of those with all answers right.

    Args:
        answers: Of one unit, see `Item.unit`.
        kind: Of the groups, a key of `Item.groups`; empty where they are one group.
        right: Whether an answer is right.
        size: Answers that a group has at least; smaller ones are not counted.
    """
    groups: dict[str, list[bool]] = {}
    for answer in answers:
        name = answer.item.groups[kind] if kind else ""
        groups.setdefault(name, []).append(bool(right(answer)))
    whole = [of for of in groups.values() if len(of) >= size]
    return len(whole), sum(all(of) for of in whole)
