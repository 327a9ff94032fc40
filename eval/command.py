"""How the benchmark's commands end; the statuses are in eah/exit_status.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from eah import exit_status
from eah.errors import EAHError
from eah.exit_status import Terminated
from eval.errors import EvaluationError, shown
from models.errors import ModelError

__all__ = ("RUN_ERRORS", "Terminated", "finish")

# What bad input to the method or to a model raises, besides the benchmark's own errors.
RUN_ERRORS: Final = (EAHError, ModelError)
KEPT: Final = "what was answered is kept, the same command goes on from there"


def finish(
    name: str, run: Callable[[], int | None], *errors: type[Exception], interrupted: str = KEPT
) -> int:
    """Run a command's work and return its exit status.

    Args:
        name: The command.
        run: Its work, from the reading of its flags on; returns its status if it can be another
            than 0.
        errors: What bad input raises, besides EvaluationError.
        interrupted: What Ctrl-C leaves behind, for the person who pressed it.
    """
    expected: tuple[type[Exception], ...] = (EvaluationError, *errors)

    def sentence_of(error: Exception) -> str | None:
        return shown(str(error)) if isinstance(error, expected) else None

    return exit_status.finish(name, run, sentence_of=sentence_of, interrupted=interrupted)
