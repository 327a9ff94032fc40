"""How every command ends: 0, 2 after one sentence about bad input, or 130 after Ctrl-C."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Final

from eah.errors import EAHError
from eval.errors import EvaluationError
from models.errors import ModelError

OK, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 2, 130, 141
# What bad input to the method or to a model raises, besides the benchmark's own errors.
RUN_ERRORS: Final = (EAHError, ModelError)
KEPT = "what was answered is kept, the same command goes on from there"


def finish(
    name: str, run: Callable[[], None], *errors: type[Exception], interrupted: str = KEPT
) -> int:
    """Run a command's work and return its exit status.

    Args:
        name: The command.
        run: Its work.
        errors: What bad input raises, besides EvaluationError.
        interrupted: What Ctrl-C leaves behind, for the person who pressed it.
    """
    expected: tuple[type[Exception], ...] = (EvaluationError, *errors)
    # What a terminal can't show, as half of a surrogate pair in a caption, is printed escaped.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        run()
        sys.stdout.flush()  # here, where a closed pipe is expected, and not at Python's exit
    except expected as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        # Whoever reads the output has seen enough, as head does; Python would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {interrupted}", file=sys.stderr)
        return INTERRUPTED
    return OK
