"""The Slurm example, with a stand-in for srun that starts tasks as Slurm does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRUN = """#!/usr/bin/env bash
[ "$1" = --kill-on-bad-exit=1 ] || exit 9
shift
for index in 0 1; do
  SLURM_PROCID=$index SLURM_NTASKS=2 SLURM_LOCALID=$index "$@"
done
"""


def test_each_task_knows_its_place_and_has_the_arguments(tmp_path: Path) -> None:
    srun = tmp_path / "srun"
    srun.write_text(SRUN)
    srun.chmod(0o755)
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import sys\nfrom eval.run.processes import this_process\n"
        "print(this_process(), sys.argv[1:])\n"
    )
    paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        ["bash", "scripts/slurm.sh", str(probe), "--model", "with space"],
        cwd=ROOT,
        env={**os.environ, **paths, "SLURM_SUBMIT_DIR": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert done.stdout.splitlines() == [
        f"Process(index={index}, count=2, local={index}) ['--model', 'with space']"
        for index in range(2)
    ], done.stderr
