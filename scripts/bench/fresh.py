"""Measurements in a fresh process: memory that a process once had would hide what follows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType


def run_in_fresh_process(script: ModuleType, *words: str) -> float:
    """Run a script as a command and return the number that it prints.

    Args:
        script: Its module.
        words: Its command line.
    """
    path = str(script.__file__)
    paths = os.pathsep.join(filter(None, [str(Path(path).parents[2]), os.getenv("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, path, *words],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)
