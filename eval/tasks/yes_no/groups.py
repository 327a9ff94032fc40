"""Questions that are scored in groups: a group is right if all its answers are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eval.files.answers import Answer


def count_right_groups(
    answers: Sequence[Answer], kind: str, right: Callable[[Answer], bool | None], size: int = 1
) -> tuple[int, int]:
    """Return the number of groups, and of groups with all answers right.

    Args:
        answers: Answers about one `Item.unit`.
        kind: Key of `Item.groups` that defines the groups; empty if all answers are one group.
        right: Returns whether an answer is right.
        size: Smallest number of answers of a group; smaller groups are not counted.
    """
    groups: dict[str, list[bool]] = {}
    for answer in answers:
        name = answer.item.groups[kind] if kind else ""
        groups.setdefault(name, []).append(bool(right(answer)))
    whole = [of for of in groups.values() if len(of) >= size]
    return len(whole), sum(all(of) for of in whole)
