"""What a result depends on besides its settings: code, versions, commit, command and time.

Answers can only be interpreted together with the code that produced them. So the sources of eah/
and models/, the versions and the weights are recorded with an arm, and compared when the arm is
resumed. Needs neither torch nor a model.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import eah
from models.settings import ROOT


def provenance(packages: Iterable[str]) -> dict[str, Any]:
    """Return versions, commit, command and time.

    Args:
        packages: Names of the packages that affect the result, besides Python and this project.
    """
    return {
        "started": now(),
        "command": sys.argv,
        "versions": versions(packages),
        "git": git_commit(),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of this project, Python and some packages."""
    installed = {name: version(name) for name in packages}
    return {"eah": eah.__version__, "python": platform.python_version(), **installed}


def now() -> str:
    """Return the time, in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def git_commit() -> str | None:
    """Return the project's commit, with "-dirty" after local changes; None if it is unknown.

    A tree from `git archive` has its commit in a file; later changes there are not detected. The
    commit of an enclosing repository is not the project's, and is not used.
    """
    with suppress(OSError):  # the file may be missing from a copy of the sources
        exported = (ROOT / EXPORTED).read_text(encoding="utf-8").strip()
        if not exported.startswith("$"):
            return exported
    top = _git("rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != ROOT.resolve():
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(*words: str) -> str | None:
    """Return git's output for the tree, whoever owns the files; None on failure."""
    try:
        said = subprocess.run(
            ["git", "-c", f"safe.directory={ROOT}", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()


PACKAGES: Final = ("torch", "transformers", "tokenizers", "sentencepiece", "pillow", "numpy")
SOURCES: Final = ("eah", "models")
# Has no effect on answers.
INCIDENTAL: Final = ("eah", "python")
EXPORTED: Final = "eval/run/commit.txt"  # see .gitattributes


def current_code(weights: str) -> dict[str, Any]:
    """Return the current code: files with their hashes, one hash over all, versions and weights.

    Args:
        weights: Identity of the weights.
    """
    files = {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for folder in SOURCES
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    return {
        "code": hashlib.sha256(str(files).encode()).hexdigest()[:16],
        "weights": weights,
        "versions": versions(PACKAGES),
        "files": files,
    }


def code_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences between recorded and current code, in words; empty if none."""
    found = []
    if then.get("code") != now["code"]:
        old, new = then.get("files", {}), now["files"]
        names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        found.append(f"{', '.join(names[:2]) or 'the code'}{more} changed")
    old_versions = then.get("versions", {})
    for name, installed in now["versions"].items():
        if name not in INCIDENTAL and old_versions.get(name) != installed:
            found.append(f"{name} {old_versions.get(name)} -> {installed}")
    if then.get("weights") != now["weights"]:
        found.append(f"weights {then.get('weights')} -> {now['weights']}")
    return found


def setting_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return which of an arm's recorded settings now have another meaning, in words."""
    found = []
    for group in ("settings", "eah"):
        old, new = then.get(group) or {}, now.get(group) or {}
        found += [
            f"{name} {old[name]} -> {new.get(name)}" for name in old if old[name] != new.get(name)
        ]
    return found
