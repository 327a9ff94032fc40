"""A run that is killed again and again ends with the answers of one that was not."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from tests.eval.forks import Forks
from tests.eval.small_runs import lines_of, numbers_of, only_run, pope_flags, same_answers

ARMS = ("baseline", "eah", "vcd")
KILLS = 8
SIZES = (1, 2, 3, 5, 7, 12)
PAUSE_S = 0.1  # at most, from the answer that is waited for to the kill: about two batches


def recorded(root: Path) -> int:
    """Return how many answers the run below a folder has, whole lines only."""
    return sum(path.read_bytes().count(b"\n") for path in root.rglob("answers.jsonl"))


def test_killed_at_random_moments_and_resumed_with_other_batch_sizes(
    server: Forks, tmp_path: Path
) -> None:
    rng = random.Random(2014)
    flags = [*pope_flags(tmp_path / "scenes", 12), "--method", *ARMS]
    assert server.run([*flags, "--output-dir", str(tmp_path / "undisturbed")]).status == 0
    undisturbed = only_run(tmp_path / "undisturbed")
    total = recorded(undisturbed)
    flags += ["--output-dir", str(root := tmp_path / "killed")]
    reached, kills = [], 0
    for target in sorted(rng.randrange(total - 20) for _ in range(KILLS)):
        process = server.start([*flags, "--batch-size", str(rng.choice(SIZES))])
        pause = rng.uniform(0, PAUSE_S)
        while server.is_running(process) and recorded(root) < target:
            time.sleep(0.002)
        time.sleep(pause)
        os.kill(process, signal.SIGKILL)
        kills += server.wait(process).status == -signal.SIGKILL
        reached.append(recorded(root))
        for path in root.rglob("answers.jsonl"):
            if rng.random() < 0.3:  # what a kill in the middle of a line leaves
                line = path.read_bytes().splitlines(keepends=True)[-1]
                with path.open("ab") as file:
                    file.write(line[: rng.randrange(1, len(line))])

    assert server.run([*flags, "--batch-size", "9"]).status == 0

    assert kills == KILLS
    assert len(set(reached)) > KILLS / 2, "answers were added between kills"
    assert max(reached) < total
    run = only_run(root)
    assert run.name == undisturbed.name
    assert same_answers(run, undisturbed, ARMS)
    assert all("p_yes" in line for arm in ("baseline", "eah") for line in lines_of(run, arm))
    metrics = "report/metrics.json"
    assert numbers_of(run / metrics) == numbers_of(undisturbed / metrics)
