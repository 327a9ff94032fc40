"""A command-line parser that takes flags with dashes and underscores and names the nearest flag."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn


class FlagParser(argparse.ArgumentParser):
    """An argument parser that knows both spellings and names the nearest flag.

    A flag that is not given leaves no trace, so that the defaults below it count.
    """

    def __init__(self, description: str) -> None:
        """Start without flags."""
        super().__init__(
            description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS
        )

    def flag(self, *names: str, **options: Any) -> None:
        """Add a flag under all its spellings."""
        spellings = [spelling for name in names for spelling in dict.fromkeys(_spellings(name))]
        self.add_argument(*spellings, **options)

    def parse(self, arguments: Sequence[str] | None) -> dict[str, Any]:
        """Return the flags that were given."""
        given, unknown = self.parse_known_args(arguments)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            name = unknown[0].split("=")[0]  # The value may be a secret.
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            self.error(f"{name} is unknown: {hint}--help lists what there is")
        return vars(given)

    def error(self, message: str) -> NoReturn:
        """Print one sentence and exit with status 2."""
        self.exit(2, f"{Path(self.prog).stem}: error: {message}\n")


def _spellings(name: str) -> list[str]:
    body = name.removeprefix("--")
    return [name, "--" + body.replace("_", "-"), "--" + body.replace("-", "_")]
