"""Messages show paths as a shell reads them, and name what they are about."""

from __future__ import annotations

import errno
import shlex
from pathlib import Path

import pytest

from eah import swap
from eah.swap import command, selftest
from tests.eah.swap.installs import DECODER, error_of, git, interpreter, ours, run


def test_an_error_of_the_system_shows_paths(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.EIO, "Input/output error", Path("/a"), None, Path("/b"))

    monkeypatch.setattr(command, "install", fail)

    assert run(site, "install") == 2

    assert error_of(capsys) == "eah: error: [Errno 5] Input/output error: '/a' -> '/b'"


def test_an_interpreter_that_fails_is_shown_without_its_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = interpreter(tmp_path, "echo no >&2; echo broken >&2; exit 3")

    assert swap.main(["status", "--python", str(python)]) == 2

    assert error_of(capsys) == (
        f"eah: error: --python {python} can't be run (exit status 3: broken); name an interpreter"
    )


@pytest.mark.parametrize("option", ["python", "site_packages"])
def test_the_advice_of_selftest_can_be_pasted(site: Path, tmp_path: Path, option: str) -> None:
    spaced = tmp_path / "a folder"
    site.rename(spaced)

    python, packages = (spaced, None) if option == "python" else (None, spaced)
    install = selftest._install(python, packages, "llama")

    assert shlex.split(install.options) == ["--" + option.replace("_", "-"), str(spaced)]


def test_restore_says_what_it_removed(place: swap.Place) -> None:
    original = place.file.read_bytes()
    swap.install(place)
    place.file.write_bytes(original)

    assert swap.restore(place) == (
        f"{place.file} is not EAH's; removed what was left next to it: "
        "modeling_llama_original.py, modeling_llama_original.sha256"
    )
    assert swap.restore(place) == f"{place.file} is not EAH's; nothing to restore"


def test_an_own_copy_is_of_a_repository(tmp_path: Path) -> None:
    file = tmp_path / "repository" / "modeling_llama.py"
    file.parent.mkdir()
    git(file.parent, "init", "--quiet")
    for version in ("old", "new"):
        file.write_text(DECODER.format(name="Llama") + version)
        git(file.parent, "add", ".")
        git(file.parent, "commit", "--quiet", "-m", version)
        place = swap.find(family="llama", file=file)
        if version == "old":
            swap.install(place)
            git(file.parent, "checkout", "--quiet", "--", file.name)

    assert "(an update of the repository replaces its file)" in swap.describe(place)
    file.write_bytes(ours())
    said = swap.describe(place)
    assert "is of another commit of the repository; get the original back" in said
    assert "transformers" not in said
