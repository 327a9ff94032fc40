"""Which pictures are observed, and what is asked about them."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eval.errors import EvaluationError
from eval.files.answers import Item

if TYPE_CHECKING:
    from eval.analysis.settings import SinkSettings


def items_of(settings: SinkSettings) -> list[Item]:
    """Return the questions about the observed pictures, including those to choose on.

    POPE's files ask about more pictures than are wanted: some of them are drawn by the seed.

    Raises:
        EvaluationError: If the data can't be read.
    """
    items = settings.task().items()
    if settings.pope_type is None:
        return items
    count = settings.wanted_pictures
    names = sorted({item.image for item in items})
    if len(names) < count and settings.num_images is not None:
        print(f"note: the questions are about {len(names)} pictures, fewer than {count}",
              file=sys.stderr)  # fmt: skip
    drawn = set(random.Random(settings.seed).sample(names, min(count, len(names))))
    return [item for item in items if item.image in drawn]


def shown_pictures(settings: SinkSettings, items: Sequence[Item]) -> list[Item]:
    """Return one question about each picture that is shown closely.

    Raises:
        EvaluationError: If one that the settings name is not among them.
    """
    first: dict[str, Item] = {}
    for item in items:
        first.setdefault(item.image, item)
    if settings.pictures is None:
        return [items[0]]
    for name in settings.pictures:
        if name not in first:
            raise EvaluationError(
                f"--pictures {name} is not among the {len(first)} observed pictures; name "
                f"one of them, such as {next(iter(first))}"
            )
    return [first[name] for name in dict.fromkeys(settings.pictures)]
