"""The command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eah import swap


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
