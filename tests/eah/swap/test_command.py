"""The command line."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from eah import __main__ as console
from eah import swap
from tests.eah.swap.installs import ours, run


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "install,status,restore"),
        ([], 2, "the following arguments are required: action"),
        (["remove"], 2, "invalid choice: 'remove'"),
        (["status", "--python", "a", "--site-packages", "b"], 2, "not allowed with argument"),
    ],
)
def test_the_command_line_is_explained(
    arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        swap.main(arguments)

    assert left.value.code == status
    output = capsys.readouterr()
    assert said in output.out + output.err


def test_it_runs_as_a_module_where_transformers_cant_be_imported(site: Path) -> None:
    (site / "transformers" / "__init__.py").write_text("raise RuntimeError('broken')\n")

    def module(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "eah.swap", *arguments], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": f"{swap.SOURCE.parents[1]}{os.pathsep}{site}"},
            cwd=site, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout

    assert f"{site}/transformers/models/llama/modeling_llama.py is" in module("status")
    assert "installed EAH" in module("install", "--site-packages", str(site))
    assert "restored" in module("restore", "--site-packages", str(site))


def test_the_console_script_is_this_command() -> None:
    project = (swap.SOURCE.parents[1] / "pyproject.toml").read_text()
    scripts = project.split("[project.scripts]\n")[1].split("\n[")[0]

    assert scripts.strip() == 'eah = "eah.__main__:main"'
    assert callable(swap.main)


def command(site: Path, action: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "eah.swap", action, "--site-packages", str(site)],
        stderr=subprocess.PIPE, text=True, cwd=swap.SOURCE.parents[1], **options,
    )  # fmt: skip


@pytest.mark.parametrize("action", ["status", "install"])
def test_a_closed_pipe_ends_it_quietly(site: Path, place: swap.Place, action: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    process = command(site, action, stdout=writer)
    os.close(writer)
    _, error = process.communicate(timeout=60)

    assert (process.returncode, error) == (141, "")
    assert (place.file.read_bytes() == ours()) == (action == "install")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_a_full_disk_is_no_question_of_ownership(site: Path) -> None:
    with open("/dev/full", "w") as full:
        process = command(site, "status", stdout=full)
        _, error = process.communicate(timeout=60)

    assert process.returncode == 2
    assert error.startswith("eah: error: [Errno 28] No space left on device\n")
    assert "owner" not in error


@pytest.mark.parametrize("action", ["check", "selftest"])
def test_actions_with_a_command_line_of_their_own_get_the_rest(
    action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def run_it(arguments: list[str]) -> int:
        given.append(arguments)
        return 7

    module = ModuleType("action")
    monkeypatch.setattr(module, "main", run_it, raising=False)
    monkeypatch.setitem(sys.modules, f"eah.swap.{REACHED_BY[action]}", module)

    assert swap.main([action, "folder", "--python", "p"]) == 7
    assert given == [["folder", "--python", "p"]]


REACHED_BY = {"check": "reach", "selftest": "selftest"}


def test_the_console_script_keeps_its_check_of_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        console.main(["check", "--help"])

    assert "--preset PRESET" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["--python", "--site-packages", "--file"])
def test_one_place_is_named(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = "--file" if where != "--file" else "--python"
    with pytest.raises(SystemExit) as left:
        swap.main(["status", where, "a", other, "b"])

    assert left.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        swap.main(["build", where, "a"])
    assert "go with install" in capsys.readouterr().err.replace("\n", " ")


def test_install_names_what_it_cant_reach(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(site, "install") == 0

    last = capsys.readouterr().out.splitlines()[-1]
    assert "`python -m eah.swap check FOLDER`" in last
    assert "`python -m eah.swap selftest --python PYTHON`" in last
    run(site, "status")
    assert "selftest" not in capsys.readouterr().out


def test_every_advice_is_a_command_that_can_be_run(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a space in the path, too."""
    spaced = tmp_path / "my packages"
    shutil.copytree(site, spaced)
    place = swap.find(family="llama", site_packages=spaced)
    swap.install(place)
    place.file.write_bytes(ours() + b"# edited")
    assert run(spaced, "status") == 1
    said = capsys.readouterr().out.splitlines()[-1].partition("put this one there: ")[2]

    program, *arguments = shlex.split(said)[2:]

    assert program == "eah.swap"
    assert swap.main(arguments) == 0
    assert place.file.read_bytes() == ours()
