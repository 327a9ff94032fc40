"""Check that a wheel holds the package `eah` and nothing else.

python scripts/check/wheel_contents.py dist/eah-*.whl
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

REQUIRED = {
    "eah/__init__.py",
    "eah/modeling_llama_eah.py",
    "eah/py.typed",
    "eah/lmms/__init__.py",
    "eah/lmms/classes.py",
}
PLUG_IN = "[lmms_eval.models]\neah = eah.lmms:manifests"  # by which lmms-eval finds its models


def check(wheel: Path) -> str | None:
    """Return what is wrong with the wheel's contents, or None."""
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    foreign = sorted(name for name in top if name != "eah" and not name.endswith(".dist-info"))
    if foreign:
        return f"{wheel.name} contains {', '.join(foreign)} besides eah"
    missing = sorted(REQUIRED - set(names))
    if missing:
        return f"{wheel.name} lacks {', '.join(missing)}"
    entries = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
    if not any(PLUG_IN in archive.read(name).decode() for name in entries):
        return f"{wheel.name} lacks the entry point of lmms-eval's plug-in"
    return None


if __name__ == "__main__":
    problem = check(Path(sys.argv[1]))
    print(problem or f"{Path(sys.argv[1]).name}: eah only")
    sys.exit(problem is not None)
