"""The command `eah`: check a model, report versions, or swap EAH's file into transformers.

python -m eah check MODEL_FOLDER
python -m eah report [RUN_FOLDER]
python -m eah install | status | restore | selftest | build      (see `eah.swap`)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from eah import swap
from eah.errors import nearest
from eah.swap.command import ACTIONS

# Commands with their own flags, imported when they are run.
COMMANDS: Final = {"check": "eah.check", "report": "eah.report"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] in COMMANDS:
        status: int = import_module(COMMANDS[given[0]]).main(given[1:])
        return status
    if given and not given[0].startswith("-") and given[0] not in ACTIONS:
        known = nearest(given[0], {*COMMANDS, *ACTIONS})
        print(f"eah: error: command {given[0]!r} is unknown: {known}", file=sys.stderr)
        return 2
    return swap.main(given)


if __name__ == "__main__":
    sys.exit(main())
