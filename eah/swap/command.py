"""The command line of the swap."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from eah.build import DROP_IN, is_current, write
from eah.errors import EAHError
from eah.exit_status import finish
from eah.settings import settings_from_environment
from eah.swap.content import FAMILY
from eah.swap.exchange import install, restore
from eah.swap.locate import find, interpreter_of
from eah.swap.place import Place
from eah.swap.report import describe, problems
from eah.swap.states import status

# Actions with their own flags, imported when they are run.
ELSEWHERE: Final = {"check": "eah.swap.reach", "selftest": "eah.swap.selftest"}
ACTIONS: Final = ("install", "status", "restore", *ELSEWHERE, "build")
WRONG: Final = 1
INTERRUPTED: Final = "the file is the complete original or EAH's; rerun the command to finish"
DENIED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
OWNER: Final = "; run this as the owner of that transformers, or use your own install"
BEYOND: Final = (
    "code with its own attention is not affected: `python -m eah.swap check FOLDER` lists "
    "it, and `python -m eah.swap selftest --python PYTHON` tests this install"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    return finish(
        "eah", lambda: _dispatch(given), sentence_of=_sentence_of, interrupted=INTERRUPTED
    )


def _sentence_of(error: Exception) -> str | None:
    """Return the message of an expected error, with paths as plain text; else None."""
    if not isinstance(error, (EAHError, OSError, ValueError)):
        return None
    if isinstance(error, OSError):
        for name in ("filename", "filename2"):
            if isinstance(path := getattr(error, name), Path):
                setattr(error, name, str(path))
    denied = isinstance(error, OSError) and error.errno in DENIED
    return f"{error}{OWNER if denied else ''}"


def _dispatch(arguments: list[str]) -> int:
    """Run one of the actions."""
    if arguments and arguments[0] in ELSEWHERE:
        code: int = import_module(ELSEWHERE[arguments[0]]).main(arguments[1:])
        return code
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.action in ELSEWHERE:
        parser.error(f"put {given.action} first: python -m eah.swap {given.action} --help")
    if given.check and given.action != "build":
        parser.error(f"--check is for build, not for {given.action}; use status to look only")
    where = given.python or given.site_packages or given.file
    if given.action == "build" and (where or given.force):
        parser.error(
            "build writes EAH's own file; --python, --site-packages, --file and --force go with "
            "install"
        )
    if given.action == "build":
        return _build(check=given.check)
    if given.action != "restore":
        settings_from_environment(os.environ)
    place = find(
        family=given.model, python=given.python, site_packages=given.site_packages, file=given.file
    )
    if given.action == "install":
        print(install(place, force=given.force, say=_say))
    elif given.action == "restore":
        print(restore(place, force=given.force, say=_say))
    return _report(place, given.action)


def _report(place: Place, action: str) -> int:
    """Print the state of a place, and return the exit status."""
    found = status(place)
    print(describe(place, found))
    if action == "install":
        print(BEYOND)
    return WRONG if action == "status" and problems(place, found) else 0


def _say(text: str) -> None:
    print(f"eah: {text}", file=sys.stderr, flush=True)


def _build(*, check: bool) -> int:
    """Write the drop-in file, or check that it matches its sources."""
    if check and not is_current():
        print(f"{DROP_IN.name} does not match its sources; run python -m eah.swap build")
        return WRONG
    if not check:
        write()
    print(f"{DROP_IN.name} is current")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eah",
        description="Replace transformers' modeling file with EAH's.",
        epilog="`python -m eah.swap check FOLDER` lists code that the swap can't reach. "
        "`python -m eah.swap selftest` tests an install. `python -m eah check MODEL_FOLDER` tests "
        "a model. `python -m eah report` prints versions and settings for an issue.",
    )
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--model", default=FAMILY, help="family of the file (default: llama)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--python", type=interpreter_of, help="interpreter whose transformers to change"
    )
    where.add_argument(
        "--site-packages", type=Path, help="folder with transformers, or a checkout of it"
    )
    where.add_argument(
        "--file", type=Path, help="the modeling file itself, such as a repository's own copy"
    )
    parser.add_argument(
        "--force", action="store_true",
        help="install over any file; restore any kept file",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="build: exit 1 if the file is stale")
    return parser
