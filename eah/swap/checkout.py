"""The original of a file in a git checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from eah.swap.content import is_ours

COMMITS: Final = 50  # looked through if EAH's file was committed


def committed_original(file: Path) -> bytes | None:
    """Return the newest committed content of a file that is not EAH's; None if there is none.

    The content is as git would check it out, so with the line ends of this checkout.
    """
    content = _git(file, "cat-file", "--filters", f"HEAD:./{file.name}")
    if content is None or not is_ours(content):
        return content
    commits = _git(file, "log", f"-{COMMITS}", "--format=%H", "--", file.name) or b""
    for commit in commits.decode().split():
        content = _git(file, "cat-file", "--filters", f"{commit}:./{file.name}")
        if content is not None and not is_ours(content):
            return content
    return None


def _git(file: Path, *arguments: str) -> bytes | None:
    """Return what git prints in a file's folder; None without git, or if it fails."""
    command = ["git", "-C", str(file.parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
