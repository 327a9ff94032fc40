"""The drop-in's checks in a copy of the installed transformers, in a process of its own.

scripts/test_matrix.sh runs all of them in twelve versions; here the slow ones are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eah import swap
from tests.eah.copied_install import copy_install

ROOT = Path(__file__).resolve().parents[2]
CHECKS = ROOT / "tests" / "drop_in"
SLOW = ("compiled", "golden", "authors")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with the installed transformers: links, and copies of what is swapped."""
    folder = tmp_path_factory.mktemp("site-packages")
    copy_install(folder)
    assert swap.main(["install", "--site-packages", str(folder)]) == 0
    yield folder
    assert swap.main(["restore", "--site-packages", str(folder)]) == 0


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
