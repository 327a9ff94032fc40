"""The drop-in's checks in a copy of the installed transformers, in a process of its own.

scripts/test_matrix.sh runs all of them in twelve versions; here the slow ones are left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers

from eah import swap

ROOT = Path(__file__).resolve().parents[2]
CHECKS = ROOT / "tests" / "drop_in"
SLOW = ("compiled", "golden", "authors")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with the installed transformers: links, and copies of what is swapped."""
    folder = tmp_path_factory.mktemp("site-packages")
    installed = Path(transformers.__file__).parent
    copied = folder / "transformers"
    _link_children(installed, copied, without="models")
    _link_children(installed / "models", copied / "models", without="llama")
    shutil.copytree(installed / "models" / "llama", copied / "models" / "llama")
    (record,) = installed.parent.glob(f"transformers-{transformers.__version__}.dist-info")
    shutil.copytree(record, folder / record.name)
    assert swap.main(["install", "--site-packages", str(folder)]) == 0
    yield folder
    assert swap.main(["restore", "--site-packages", str(folder)]) == 0


def _link_children(source: Path, target: Path, *, without: str) -> None:
    target.mkdir()
    for child in source.iterdir():
        if child.name not in (without, "__pycache__"):
            (target / child.name).symlink_to(child)


def test_the_checks_of_the_drop_in_pass_in_a_copied_install(site: Path) -> None:
    unselected = " or ".join(SLOW)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(CHECKS),
            "--confcutdir", str(CHECKS), "-p", "no:cacheprovider", "-q",
            "-k", f"not ({unselected})", *map(str, CHECKS.glob("check_[dpm]*.py")),
        ],
        env=environment, capture_output=True, text=True, cwd=site,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
