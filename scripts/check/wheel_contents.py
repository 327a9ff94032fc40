"""Check that a wheel contains the package `eah` and nothing else.

python scripts/check/wheel_contents.py dist/eah-*.whl
"""

from __future__ import annotations

import argparse
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="file to check, such as dist/eah-*.whl")
    wheel = parser.parse_args().wheel
    problem = check(wheel)
    print(problem or f"{wheel.name}: eah only")
    sys.exit(problem is not None)
