"""How every command ends: 0, 2 after one sentence about bad input, or 130 after Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable

from eah import EAHError
from eval.errors import EvaluationError
from models import ModelError

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130


def finish(name: str, run: Callable[[], None]) -> int:
    """Run a command's work and return its exit status."""
    try:
        run()
    except (EvaluationError, ModelError, EAHError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(
            f"{name}: interrupted; what was answered is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return INTERRUPTED
    return OK
