"""The original of a file in a git checkout."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Final

from eah.swap.content import is_ours
from eah.swap.place import Place, SwapError
from eah.swap.records import version_of_package

COMMITS: Final = 50  # searched if EAH's file was committed
TIMEOUT_S: Final = 60.0
LINK: Final = b"120000 "  # how ls-tree shows a symbolic link
# A git hook sets them for the repository that it belongs to.
HOOKS: Final = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")


def committed_original(place: Place) -> bytes | None:
    """Return the newest committed content of a file that is not EAH's; None if there is none.

    The content is as git would check it out, with this checkout's line endings. Commits of another
    version of transformers than the one on disk are ignored, and so are links.
    """
    for commit in _commits(place):
        if _is_link(place, commit):
            return None
        content = _git(place, "cat-file", "--filters", f"{commit}:./{place.file.name}")
        if content is not None and not is_ours(content):
            return content if _is_of_version(place, commit) else None
    return None


def _commits(place: Place) -> Iterator[str]:
    """Yield the last commit, and then those that changed the file."""
    yield "HEAD"
    if _git(place, "cat-file", "-e", f"HEAD:./{place.file.name}") is not None:
        commits = _git(place, "log", f"-{COMMITS}", "--format=%H", "--", place.file.name) or b""
        yield from commits.decode().split()


def _is_link(place: Place, commit: str) -> bool:
    found = _git(place, "ls-tree", commit, "--", place.file.name) or b""
    return found.startswith(LINK)


def _is_of_version(place: Place, commit: str) -> bool:
    if place.package is None or not place.version:
        return True
    init = os.path.relpath(place.package / "__init__.py", place.file.parent).replace(os.sep, "/")
    text = (_git(place, "cat-file", "-p", f"{commit}:{init}") or b"").decode(errors="replace")
    return version_of_package(text) in (None, place.version)


def _git(place: Place, *arguments: str) -> bytes | None:
    """Return what git prints in a file's folder; None without git, or if it fails.

    Raises:
        SwapError: If it does not end.
    """
    command = ["git", "-C", str(place.file.parent), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in HOOKS}
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, env=environment,
            stdin=subprocess.DEVNULL, timeout=TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SwapError(
            f"git does not answer within {TIMEOUT_S:.0f} seconds in {place.file.parent}; check "
            "what it waits for, and run this again"
        ) from error
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
