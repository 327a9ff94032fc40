"""Commands run under their paths and under those that they had before scripts/ had folders."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from scripts.scenes import make
from tests.eval.small_runs import state_of

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
# What came later.
SINCE = {
    "scripts/scenes/make.py",
    "scripts/scenes/questions.py",
    "scripts/scenes/readme_figure.sh",
    "scripts/bench/peers.py",
    "scripts/bench/summary.py",
    "scripts/data/amber_pairs.py",
    "scripts/check/prose.py",
}
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


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a picture and annotations of somebody else, and a file."""
    folder = tmp_path_factory.mktemp("mine")
    for name in ("coco/annotations/instances_val2014.json", "coco/val2014/1.jpg",
                 "pictures/val2014/1.jpg", "tiny/notes.txt", "file"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    return folder


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--output {}/file", "{}/file can't be written: Not a directory"),
        ("--output {}/file/below", "can't be written: Not a directory"),
        ("--output /proc/none", "can't be written: No such file or directory"),
        ("--output {}/coco", "holds instances_val2014.json of another source; name another folder"),
        ("--output {}/pictures", "holds pictures of another source; name another folder"),
        ("--output= --count 1", "--output is empty"),
        ("--output {}/new --count 0", "--count 0, but at least one scene is needed"),
        ("--output {}/new --count 1000001", "--count 1000001 is too many; name at most 1000000"),
        ("--output {}/new --count many", "argument --count: invalid int value: 'many'"),
        ("--outpt {}/new", "the following arguments are required: --output"),
    ],
)
def test_scenes_are_written_over_nothing_of_others(
    annotated: Path, capsys: pytest.CaptureFixture[str], flags: str, said: str
) -> None:
    before = state_of(annotated)
    try:
        status = make.main(flags.replace("{}", str(annotated)).split())
    except SystemExit as ended:  # wrong flags
        status = int(str(ended.code))

    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("make: error: ") or ": error: " in line
    assert said.replace("{}", str(annotated)) in line
    assert state_of(annotated) == before


def test_scenes_are_written_again_and_over_others_if_asked(annotated: Path, tmp_path: Path) -> None:
    assert make.main(["--output", str(tmp_path), "--count", "2"]) == 0
    before = {name: content for name, (content, _) in state_of(tmp_path).items()}
    assert make.main(["--output", str(tmp_path), "--count", "2"]) == 0
    assert {name: content for name, (content, _) in state_of(tmp_path).items()} == before
    shutil.copytree(annotated / "coco", tmp_path / "coco")
    assert make.main(["--output", str(tmp_path / "coco"), "--count", "1", "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--output {}/file", "{}/file can't be written: File exists"),
        ("--output {}/tiny", "holds files that this command did not write"),
        ("--output {}/new --steps -1", "--steps -1, but at least 1 is needed"),
        ("--output {}/new --scenes 0", "--scenes 0, but at least 1 is needed"),
    ],
)
def test_training_starts_with_free_folders_and_whole_numbers_only(
    annotated: Path, capsys: pytest.CaptureFixture[str], flags: str, said: str
) -> None:
    train_tiny = pytest.importorskip("scripts.scenes.train_tiny")

    assert train_tiny.main(flags.replace("{}", str(annotated)).split()) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert said.replace("{}", str(annotated)) in line
    assert not (annotated / "new").exists()


def test_nothing_else_lies_at_the_top() -> None:
    found = {path.relative_to(ROOT).as_posix() for path in SCRIPTS.glob("*.*")}

    assert found == {*FORMER, *AT_THE_TOP, "scripts/__init__.py"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_commands_that_are_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")

    commands = set(re.findall(r"(?:python|bash|sbatch) (scripts/[\w/]+\.(?:py|sh))", text))
    named = set(re.findall(r"scripts/[\w/]+\.(?:py|sh)", text))

    assert commands <= {*FORMER.values(), *AT_THE_TOP, *SINCE}
    assert not named & {*FORMER}
    assert all((ROOT / path).is_file() for path in named)


def test_the_documents_name_every_command() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)

    assert [path for path in (*FORMER.values(), *SINCE) if path not in text] == []


def test_no_module_shadows_another_when_its_neighbour_is_run() -> None:
    """`python scripts/bench/opera.py` finds the modules of its folder before all others."""
    others = {*sys.stdlib_module_names, *packages_distributions()}
    others |= {path.name for path in ROOT.iterdir() if path.is_dir()}

    for path in SCRIPTS.glob("*/*.py"):
        assert path.stem not in others, path
