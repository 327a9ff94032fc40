"""Describe this installation, and a run, in Markdown to paste into an issue.

    python -m eah report [RUN_FOLDER]

Prints versions, devices, attention kernels, EAH's environment variables and the state of the
drop-in. With a run folder, it also prints the settings that decide the answers. It prints no other
environment variables, no keys, and ~ instead of home folders. Works without torch or transformers.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from eah.errors import EAHError
from eah.exit_status import finish
from eah.redact import hide_home, hide_secrets
from eah.report.run import describe_run
from eah.report.system import (
    describe_devices,
    describe_drop_in,
    describe_kernels,
    describe_platform,
    describe_variables,
    describe_versions,
)

LONGEST: Final = 500  # characters of a value that are shown
Lines = Iterator[tuple[str, object]]
SECTIONS: Final[dict[str, Callable[[], Lines]]] = {
    "Versions": describe_versions,
    "Platform": describe_platform,
    "Devices": describe_devices,
    "Attention kernels": describe_kernels,
    "Environment variables of EAH": lambda: describe_variables(os.environ),
    "Drop-in": describe_drop_in,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 2 if the run folder can't be read."""
    parser = argparse.ArgumentParser(
        prog="eah report",
        description="Print versions, devices and settings in Markdown, to paste into an issue.",
        epilog="Keys and other environment variables are never printed. Read it before you send "
        "it.",
    )
    parser.add_argument("run", nargs="?", metavar="RUN_FOLDER", help="also describe this run")
    return finish(
        "eah report",
        lambda: _print_report(parser.parse_args(arguments).run),
        sentence_of=lambda error: str(error) if isinstance(error, EAHError) else None,
        interrupted="nothing was changed",
    )


def _print_report(run: str | None) -> None:
    sections = dict(SECTIONS)
    if run is not None:
        folder = Path(run)
        if not (folder / "run.json").is_file():
            raise EAHError(
                f"{hide_home(run)} has no run.json; name a run folder, as `python eval/runs.py` "
                "lists them, or leave it out"
            )
        sections["Run"] = lambda: describe_run(folder)
    print(render(sections))


def render(sections: dict[str, Callable[[], Lines]]) -> str:
    """Return sections as Markdown: a heading each, and a list of names and values."""
    lines = ["### EAH report"]
    for title, describe in sections.items():
        lines += ["", f"**{title}**", ""]
        found = [f"- {_plain(name)}: `{_plain(value)}`" for name, value in _safely(describe)]
        lines += found or ["- none"]
    return "\n".join(lines)


def _safely(describe: Callable[[], Lines]) -> Lines:
    """Yield the lines of a section, and one for an error that ends it.

    A broken install is what a report is for, and importing it may raise anything.
    """
    try:
        yield from describe()
    except Exception as error:
        yield "error", f"{type(error).__name__}: {error}"


def _plain(value: object) -> str:
    """Return a value in one line, without secrets, home folders and Markdown's code marks."""
    # Before it is cut: half a key would not be recognized.
    text = hide_home(hide_secrets(" ".join(str(value).split()))).replace("`", "'")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
