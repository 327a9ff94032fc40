"""Commands run under their paths and under those that they had before scripts/ had folders."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
# What the documents named until scripts/ had folders; somebody's shell history has it.
FORMER = {
    "scripts/bench.py": "scripts/bench/costs.py",
    "scripts/bench_judge.py": "scripts/bench/judge.py",
    "scripts/bench_opera.py": "scripts/bench/opera.py",
    "scripts/check_kernel.py": "scripts/check/kernel.py",
    "scripts/check_shapes.py": "scripts/check/shapes.py",
    "scripts/convert_checkpoint.py": "scripts/data/convert_checkpoint.py",
    "scripts/download_data.sh": "scripts/data/download.sh",
    "scripts/import_chair_cache.py": "scripts/data/import_chair_cache.py",
    "scripts/make_lexicon.py": "scripts/data/make_lexicon.py",
    "scripts/train_tiny.py": "scripts/scenes/train_tiny.py",
}
# What somebody, CI or Slurm starts, or another script sources.
AT_THE_TOP = {
    f"scripts/{name}.sh" for name in ("demo", "slurm", "test", "test_matrix", "venv")
}  # fmt: skip
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def run(script: str, *arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash" if script.endswith(".sh") else sys.executable, str(ROOT / script), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


def help_of(script: str, folder: Path) -> str:
    """Return what a command's help says after its usage, which names the file that was started."""
    done = run(script, "--help", folder=folder)
    assert done.returncode == 0, done.stderr
    usage, _, rest = done.stdout.partition("\n\n")
    assert usage.lower().startswith("usage: ")
    if script.endswith(".py"):
        assert usage.split()[1] == Path(script).name
    return rest


@pytest.mark.parametrize(("former", "now"), FORMER.items())
def test_help_is_the_same_under_both_paths_from_any_folder(
    former: str, now: str, tmp_path: Path
) -> None:
    assert help_of(former, tmp_path) == help_of(now, tmp_path)


def test_scenes_are_made_from_any_folder(tmp_path: Path) -> None:
    assert "--count" in help_of("scripts/scenes/make.py", tmp_path)

    done = run("scripts/scenes/make.py", "--output", "made", "--count", "1", folder=tmp_path)

    assert done.stdout == "1 scenes in made\n"


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("scripts/make_lexicon.py --check", 0, ""),
        ("scripts/check_kernel.py --device cpu", 2, "check_kernel: error: "),
        ("scripts/check/kernel.py --device cpu", 2, "kernel: error: "),
        ("scripts/import_chair_cache.py", 2, "import_chair_cache: error: "),
        ("scripts/download_data.sh --only nothing", 2, "error: --only nothing, but it is "),
    ],
)
def test_flags_and_status_pass_through(command: str, status: int, said: str) -> None:
    done = run(*command.split())

    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(said)


def test_nothing_else_lies_at_the_top() -> None:
    found = {path.relative_to(ROOT).as_posix() for path in SCRIPTS.glob("*.*")}

    assert found == {*FORMER, *AT_THE_TOP, "scripts/__init__.py"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_commands_that_are_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")

    commands = set(re.findall(r"(?:python|bash|sbatch) (scripts/[\w/]+\.(?:py|sh))", text))
    named = set(re.findall(r"scripts/[\w/]+\.(?:py|sh)", text))

    assert commands <= {*FORMER.values(), *AT_THE_TOP}
    assert not named & {*FORMER}
    assert all((ROOT / path).is_file() for path in named)


def test_the_documents_name_every_command() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)

    assert [path for path in FORMER.values() if path not in text] == []


def test_no_module_shadows_another_when_its_neighbour_is_run() -> None:
    """`python scripts/bench/opera.py` finds the modules of its folder before all others."""
    others = {*sys.stdlib_module_names, *packages_distributions()}
    others |= {path.name for path in ROOT.iterdir() if path.is_dir()}

    for path in SCRIPTS.glob("*/*.py"):
        assert path.stem not in others, path
