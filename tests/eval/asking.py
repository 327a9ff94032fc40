"""What a forked command does in tests of kills: note what it asks, and be slow at writing.

Started by name, see `Forks.start`; the variables say where to note and how slow to be.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ASKED = "TEST_ASKED"
SLOW_S = 0.01


def slow_and_noted() -> None:
    """Note each question before a model is asked, and wait around each flush to the disk."""
    from eval.run.runner import Asker

    slow()
    answers, noted = Asker.answers, Path(os.environ[ASKED])

    def noting(self: Asker, arm: Any, index: int, batch: Any, cost: Any) -> Iterator[Any]:
        line = "".join(f"{arm.name} {prompt.key}\n" for prompt in batch)
        with noted.open("ab", buffering=0) as file:  # one write, which a kill can't split
            file.write(line.encode())
        yield from answers(self, arm, index, batch, cost)

    Asker.answers = noting  # type: ignore[method-assign]


def slow() -> None:
    """Wait around each flush to the disk and each renaming, so that kills meet them."""
    for name in ("fsync", "replace"):
        setattr(os, name, _slowed(getattr(os, name)))


def _slowed(function: Any) -> Any:
    def slowed(*arguments: Any) -> Any:
        time.sleep(random.uniform(0, SLOW_S))
        done = function(*arguments)
        time.sleep(random.uniform(0, SLOW_S))
        return done

    return slowed
