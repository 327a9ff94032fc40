"""The command `eah`: check a model, or swap EAH's file into transformers (see `eah.swap`).

python -m eah check MODEL_FOLDER
python -m eah install | status | restore | selftest | build
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from eah import check, swap

CHECK = "check"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == [CHECK]:
        return check.main(given[1:])
    return swap.main(given)


if __name__ == "__main__":
    sys.exit(main())
