"""An original that was overwritten comes back from the wheel of its version, or from git."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from eah import swap
from eah.swap import repair
from tests.eah.swap.installs import (
    VERSION,
    error_of,
    interpreter,
    ours,
    row,
    run,
    tree,
    write_wheel,
)

LLAMA = "transformers/models/llama/modeling_llama.py"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: None) -> Path:
    """Return a folder in which the user's pip looks for wheels, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.parametrize("action", ["install", "restore"])
def test_pip_brings_the_original_of_the_same_version(
    site: Path, index: Path, overwritten: bytes, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wheel(index, {LLAMA: overwritten})
    write_wheel(index, {LLAMA: overwritten + b"# newer"}, version="5.0.0")

    assert run(site, action) == 0

    folder = (site / LLAMA).parent
    kept = "modeling_llama_original.py" if action == "install" else "modeling_llama.py"
    assert (folder / kept).read_bytes() == overwritten
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "eah: the original, modeling_llama_original.py, is missing"
    command = shlex.join([
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", f"transformers=={VERSION}",
    ])  # fmt: skip
    assert said[1] == f"eah: getting the original from its wheel ({command})"
    assert len(said) == 2
    assert run(site, "status") == 0


@pytest.mark.parametrize("action", ["install", "restore"])
def test_without_a_wheel_it_is_one_command(
    site: Path, index: Path, overwritten: bytes, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(site)

    assert run(site, action) == 2

    error = error_of(capsys)
    assert "No matching distribution found for transformers==4.99.0" in error
    assert error.endswith(
        "; run, with the Python of that environment: PYTHON -m pip install --force-reinstall "
        "--no-deps transformers==4.99.0"
    )
    assert tree(site) == before


def test_the_advice_names_an_interpreter_that_uses_the_place(
    site: Path, tmp_path: Path, overwritten: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    python = interpreter(tmp_path, f'echo "{site}/transformers/__init__.py"')

    assert swap.main(["install", "--python", str(python)]) == 2

    assert f"; run: {python} -m pip install --force-reinstall" in error_of(capsys)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("another file", "what was found is not the file that was installed (its checksum"),
        ("not in it", "can't be read"),
        ("no zip", "can't be read"),
        ("damaged", "is damaged (its checksum differs)"),
        ("no record", "is damaged (its checksum differs)"),
        ("ours", "what was found is not the file that was installed"),
    ],
)  # fmt: skip
def test_a_wheel_that_does_not_have_the_original_changes_nothing(
    site: Path, tmp_path: Path, overwritten: bytes, damage: str, said: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    files = {"not in it": {}, "ours": {LLAMA: ours()}}.get(damage, {LLAMA: overwritten})
    if damage == "another file":
        files = {LLAMA: overwritten + b"\n"}
    if damage in ("damaged", "no record"):
        monkeypatch.setattr(
            "tests.eah.swap.installs.row",
            lambda name, content: "" if damage == "no record" else row(name, content + b"1"),
        )
    wheel = write_wheel(tmp_path, files)
    if damage == "no zip":
        wheel.write_bytes(b"PK")
    monkeypatch.setattr(
        repair, "_download", lambda command, folder: str(shutil.copy(wheel, folder))[:0]
    )
    before = tree(site)

    assert run(site, "install") == 2

    assert said in error_of(capsys)
    assert tree(site) == before


def test_without_a_record_a_wheel_with_our_own_file_is_refused(
    site: Path, tmp_path: Path, overwritten: bytes, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    shutil.rmtree(site / f"transformers-{VERSION}.dist-info")
    wheel = write_wheel(tmp_path, {LLAMA: ours()})
    monkeypatch.setattr(
        repair, "_download", lambda command, folder: str(shutil.copy(wheel, folder))[:0]
    )

    assert run(site, "install") == 2

    assert "is not an original" in error_of(capsys)


def test_a_wheel_built_from_an_overwritten_tree_has_recorded_our_file(
    site: Path, tmp_path: Path, overwritten: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = site / f"transformers-{VERSION}.dist-info" / "RECORD"
    record.write_text(row(LLAMA, ours()))
    wheel = write_wheel(tmp_path, {LLAMA: overwritten})
    monkeypatch.setattr(
        repair, "_download", lambda command, folder: str(shutil.copy(wheel, folder))[:0]
    )
    assert run(site, "status") == 1

    assert run(site, "install") == 0

    assert run(site, "status") == 0
    assert run(site, "restore") == 0
    assert (site / LLAMA).read_bytes() == overwritten


def test_a_wheel_built_from_a_tree_swapped_by_hand_has_recorded_both(
    site: Path, overwritten: bytes
) -> None:
    kept = (site / LLAMA).with_name("modeling_llama_original.py")
    kept.write_bytes(overwritten)
    record = site / f"transformers-{VERSION}.dist-info" / "RECORD"
    name = kept.relative_to(site).as_posix()
    record.write_text(row(LLAMA, ours()) + row(name, overwritten))

    assert run(site, "status") == 0
    assert run(site, "restore") == 0
    assert (site / LLAMA).read_bytes() == overwritten


# Whose pip ----------------------------------------------------------------------------------------


def test_the_pip_of_the_named_interpreter_is_asked_without_the_callers_path(
    site: Path, index: Path, tmp_path: Path, overwritten: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(index, {LLAMA: overwritten})
    log = tmp_path / "log"
    python = interpreter(
        tmp_path,
        f'echo "$PYTHONPATH|$PYTHONHOME|$*" >> "{log}"\n'
        f'case $1 in -c) echo "{site}/transformers/__init__.py" ;; '
        f'*) exec "{sys.executable}" "$@" ;; esac',
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert swap.main(["install", "--python", "./python"]) == 0

    asked, pip = log.read_text().splitlines()
    assert asked.startswith("||-c import importlib")
    assert pip.startswith("||-m pip download --no-deps --only-binary=:all: ")
    assert (site / LLAMA).with_name("modeling_llama_original.py").read_bytes() == overwritten
    assert python.is_file()


def test_an_interpreter_without_pip_leaves_it_to_ours(
    site: Path, index: Path, tmp_path: Path, overwritten: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wheel(index, {LLAMA: overwritten})
    interpreter(
        tmp_path,
        f'case $1 in -c) echo "{site}/transformers/__init__.py" ;; '
        "*) echo No module named pip >&2; exit 1 ;; esac",
    )

    assert swap.main(["install", "--python", str(tmp_path / "python")]) == 0

    said = capsys.readouterr().err
    assert f"({tmp_path}/python -m pip" in said
    assert f"({sys.executable} -m pip" in said


def test_the_interpreter_of_a_virtual_environment_is_found_from_its_packages(
    site: Path, tmp_path: Path
) -> None:
    packages = tmp_path / "env" / "lib" / "python3.9" / "site-packages"
    packages.parent.mkdir(parents=True)
    site.rename(packages)
    (tmp_path / "env" / "bin").mkdir()
    python = interpreter(tmp_path / "env" / "bin", "exit 1")

    place = swap.find(family="llama", site_packages=packages)

    assert repair.interpreters(place) == [python, Path(sys.executable)]


def test_a_pip_that_cant_be_run_is_one_sentence(
    site: Path, overwritten: bytes, tmp_path: Path, pip: None, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))

    assert run(site, "install") == 2

    assert "No such file" in error_of(capsys)
