"""Kill -9 at any moment leaves the original or EAH's file, whole, and the next command goes on.

EAH_TEST_KILLS=50 kills so often.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from eah import swap
from tests.eah.swap.installs import ours, run
from tests.eval.asking import slow

KILLS = int(os.environ.get("EAH_TEST_KILLS", "12"))
LONGEST_S = 0.12  # slowed down, an install takes about as long


def test_killed_at_random_moments(site: Path, place: swap.Place) -> None:
    rng, kills = random.Random(19), 0
    original, contents = place.file.read_bytes(), []
    while kills < KILLS:
        action = rng.choice(["install", "restore"])
        kills += kill(site, action, rng.uniform(0, LONGEST_S))
        contents.append(place.file.read_bytes())
        assert contents[-1] in (original, ours())
        assert contents[-1] == original or place.original.read_bytes() == original
        assert run(site, "status") in (0, 1)
        if rng.random() < 0.3:
            assert run(site, "install") == 0
            assert (place.file.read_bytes(), place.original.read_bytes()) == (ours(), original)
            assert run(site, "status") == 0

    assert run(site, "restore") == 0
    assert place.file.read_bytes() == original
    assert sorted(path.name for path in place.file.parent.iterdir()) == [
        "__init__.py", "configuration_llama.py", "modeling_llama.py"
    ]  # fmt: skip
    assert {original, ours()} == set(contents)


def kill(site: Path, action: str, after_s: float) -> bool:
    """Kill an action in a process of its own; return whether it had not ended."""
    process = os.fork()
    if not process:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            slow()
            run(site, action)
        finally:
            os._exit(0)
    time.sleep(after_s)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)
