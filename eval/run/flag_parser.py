"""The argument parser of all commands: dashes and underscores in flags are equivalent."""

from __future__ import annotations

import argparse
import difflib
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from eval.errors import to_one_line

WIDTH: Final = 100
# In the order of the help; the command's own flags come first.
OWN: Final = "this command"
GROUPS: Final = (OWN, "model", "data", "arms", "decoding", "running", "output")
ABOUT_ARMS: Final = "An arm is one way to answer: a decoding method, with or without EAH."


class FlagParser(argparse.ArgumentParser):
    """An argument parser that accepts both spellings of a flag and suggests the nearest flag.

    A flag that is not given is absent from the result, so that defaults from elsewhere apply.
    """

    def __init__(self, documentation: str) -> None:
        """Start without flags.

        Args:
            documentation: A description of the command, then an example, indented by four spaces.
        """
        what, _, rest = documentation.strip().partition("\n\n")
        example = rest.partition("\n\n")[0]
        super().__init__(
            usage="%(prog)s [FLAG ...]",
            description=f"example:\n{example}\n\n{what}",
            formatter_class=_Formatter,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            add_help=False,
        )
        self.describe_foreign: Callable[[str], str] = lambda _: ""  # for flags of other commands
        self._named = {name: self.add_argument_group(name) for name in GROUPS}
        self.flag("--help", "-h", action="help", help="show this help and exit", group="output")

    def flag(self, *names: str, group: str = OWN, **options: Any) -> None:
        """Add a flag with all its spellings; the help shows the first name.

        Args:
            names: One or more.
            group: One of GROUPS.
            options: Passed to `add_argument`.
        """
        if "action" not in options:
            kinds = {int: "N", float: "X", Path: "PATH"}
            options.setdefault("metavar", kinds.get(options.get("type", str), "NAME"))
        spellings = dict.fromkeys(spelling for name in names for spelling in _spellings(name))
        if group == "arms":
            self._named[group].description = ABOUT_ARMS  # only where the help lists such flags
        self._named[group].add_argument(*spellings, **options)

    def overwrite_flag(self) -> None:
        """Add --overwrite, for commands that write files named by flags."""
        text = "also replace output files that this command did not write"
        self.flag("--overwrite", action="store_true", group="output", help=text)

    def knows(self, flag: str) -> bool:
        """Return whether the parser has this flag."""
        return flag in self._option_string_actions

    def parse(self, arguments: Sequence[str] | None) -> dict[str, Any]:
        """Return the flags that were given."""
        given, unknown = self.parse_known_args(arguments)
        if unknown:
            known = list(self._option_string_actions)
            name = unknown[0].split("=")[0]  # The value may be a secret.
            if elsewhere := self.describe_foreign(name):
                self.error(f"{elsewhere}--help lists the flags")
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            self.error(f"{name} is unknown: {hint}--help lists the flags")
        return vars(given)

    def error(self, message: str) -> NoReturn:
        """Print the error in one line and exit with status 2."""
        self.exit(2, to_one_line(f"{Path(self.prog).stem}: error: {message}") + "\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help of at most 100 columns that shows one spelling of each flag."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=WIDTH)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)  # keeps names such as tiny-llava

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = action.option_strings[:1]
        if action.nargs == 0:
            return names[0]
        default = self._get_default_metavar_for_optional(action)
        return f"{names[0]} {self._format_args(action, default)}"


def _spellings(name: str) -> list[str]:
    if not name.startswith("--"):
        return [name]
    body = name.removeprefix("--")
    return [name, "--" + body.replace("_", "-"), "--" + body.replace("-", "_")]
