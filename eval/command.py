"""How the benchmark's commands end; the statuses are in eah/exit_status.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from eah import exit_status
from eah.errors import EAHError
from eah.exit_status import Terminated
from eval.errors import EvaluationError, to_one_line
from models.errors import ModelError

__all__ = ("RUN_ERRORS", "Terminated", "finish")

# Raised for bad input to the method or to a model, besides EvaluationError.
RUN_ERRORS: Final = (EAHError, ModelError)
KEPT: Final = "recorded answers are kept; rerun the command to resume"


def finish(
    name: str, run: Callable[[], int | None], *errors: type[Exception], interrupted: str = KEPT
) -> int:
    """Run a command's work and return its exit status.

    Args:
        name: The command.
        run: The work, including parsing the flags; may return an exit status other than 0.
        errors: Errors that bad input raises, besides EvaluationError.
        interrupted: Printed after Ctrl-C: what is kept and how to resume.
    """
    expected: tuple[type[Exception], ...] = (EvaluationError, *errors)

    def sentence_of(error: Exception) -> str | None:
        return to_one_line(str(error)) if isinstance(error, expected) else None

    return exit_status.finish(name, run, sentence_of=sentence_of, interrupted=interrupted)
