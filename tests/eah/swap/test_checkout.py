"""The original comes back from git."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eah import swap
from eah.swap import checkout, repair
from tests.eah.swap.installs import VERSION, error_of, git, interpreter, ours, run, write_wheel

LLAMA = "transformers/models/llama/modeling_llama.py"


def test_an_original_before_the_commit_of_ours_is_found(site: Path) -> None:
    original = (site / LLAMA).read_bytes()
    shutil.rmtree(site / f"transformers-{VERSION}.dist-info")
    git(site, "init", "--quiet")
    git(site, "add", ".")
    git(site, "commit", "--quiet", "-m", "vendored")
    for number in range(2):
        (site / LLAMA).write_bytes(ours() + b"\n# edited" * number)
        git(site, "commit", "--quiet", "-am", "overwritten")
    assert run(site, "status") == 1

    assert run(site, "install") == 0

    assert run(site, "status") == 0
    assert (site / LLAMA).with_name("modeling_llama_original.py").read_bytes() == original
    assert run(site, "restore") == 0
    assert (site / LLAMA).read_bytes() == original


def test_line_ends_are_those_of_the_checkout(site: Path) -> None:
    shutil.rmtree(site / f"transformers-{VERSION}.dist-info")
    git(site, "init", "--quiet")
    git(site, "config", "core.autocrlf", "true")
    git(site, "add", ".")
    git(site, "commit", "--quiet", "-m", "vendored")
    (site / LLAMA).unlink()
    git(site, "checkout", "--quiet", ".")
    original = (site / LLAMA).read_bytes()
    assert b"\r\n" in original
    (site / LLAMA).write_bytes(ours())

    assert run(site, "restore") == 0

    assert (site / LLAMA).read_bytes() == original
    assert run(site, "status") == 0


def test_a_commit_of_another_version_is_not_the_original(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where another transformers was unpacked over a committed one."""
    shutil.rmtree(site / f"transformers-{VERSION}.dist-info")
    git(site, "init", "--quiet")
    git(site, "add", ".")
    git(site, "commit", "--quiet", "-m", "vendored")
    (site / "transformers" / "__init__.py").write_text('__version__ = "4.100.0"\n')
    assert swap.find(family="llama", site_packages=site).record == ""
    (site / LLAMA).write_bytes(ours())

    assert run(site, "restore") == 2

    assert "could not bring the wheel of transformers 4.100.0" in error_of(capsys)


def test_the_repository_of_a_git_hook_is_not_asked(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(site / f"transformers-{VERSION}.dist-info")
    git(site, "init", "--quiet")
    git(site, "add", ".")
    git(site, "commit", "--quiet", "-m", "vendored")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))

    assert swap.find(family="llama", site_packages=site).record == "git"


def test_an_unknown_version_is_one_sentence(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(site / f"transformers-{VERSION}.dist-info")
    (site / "transformers" / "__init__.py").write_text("")
    (site / LLAMA).write_bytes(ours())

    assert run(site, "install") == 2

    assert "the version of that transformers is not known" in error_of(capsys)


def test_without_git_the_wheel_is_asked(
    site: Path, overwritten: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.rmtree(site / f"transformers-{VERSION}.dist-info")
    tree_ = tmp_path / "transformers-4.99.0" / "src"
    tree_.parent.mkdir()
    site.rename(tree_)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        subprocess.run(["git"], check=False)

    assert run(tree_, "install") == 2

    error = error_of(capsys)
    kept = (tree_ / LLAMA).with_name("modeling_llama_original.py")
    folder = "transformers-4.99.0-wheel"
    assert error.endswith(
        f"run: {sys.executable} -m pip download --no-deps -d {folder} transformers==4.99.0 && "
        f"{sys.executable} -m zipfile -e {folder}/transformers-*.whl {folder} && "
        f"cp -i {folder}/{LLAMA} {kept}"
    )


@pytest.mark.parametrize("kept", [None, b"# edited"])
def test_the_advice_brings_the_original_and_destroys_nothing(
    site: Path, tmp_path: Path, kept: bytes | None
) -> None:
    original = (site / LLAMA).read_bytes()
    shutil.rmtree(site / f"transformers-{VERSION}.dist-info")
    checkout = tmp_path / "a checkout"
    site.rename(checkout)
    place = swap.find(family="llama", site_packages=checkout)
    place.file.write_bytes(ours())
    if kept is not None:
        place.original.write_bytes(kept)
    work = tmp_path / "work"
    (work / "transformers-4.99.0-wheel").mkdir(parents=True)
    write_wheel(work / "transformers-4.99.0-wheel", {LLAMA: original})
    download, *rest = repair.advice(place).removeprefix("run: ").split(" && ")
    assert "pip download" in download

    subprocess.run(
        " && ".join(rest), shell=True, cwd=work, stdin=subprocess.DEVNULL, capture_output=True,
        check=False,
    )  # fmt: skip

    assert place.original.read_bytes() == (original if kept is None else kept)


def test_our_file_with_the_line_ends_of_windows_is_ours(site: Path, place: swap.Place) -> None:
    original = place.file.read_bytes()
    swap.install(place)
    place.file.write_bytes(ours().replace(b"\n", b"\r\n"))

    found = swap.status(place)

    assert (found.kind, found.current) == ("ours", True)
    assert run(site, "status") == 0
    assert run(site, "restore") == 0
    assert place.file.read_bytes() == original


@pytest.mark.parametrize("earlier", [True, False])
def test_our_file_in_the_last_commit_is_not_the_original_with_any_line_ends(
    site: Path, earlier: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """As git commits and checks it out on Windows."""
    original = (site / LLAMA).read_bytes()
    shutil.rmtree(site / f"transformers-{VERSION}.dist-info")
    git(site, "init", "--quiet")
    git(site, "config", "core.autocrlf", "false")
    if earlier:
        git(site, "add", ".")
        git(site, "commit", "--quiet", "-m", "vendored")
    (site / LLAMA).write_bytes(ours().replace(b"\n", b"\r\n"))
    git(site, "add", ".")
    git(site, "commit", "--quiet", "-m", "overwritten")
    assert run(site, "status") == 1
    assert swap.find(family="llama", site_packages=site).record == ("git" if earlier else "")

    assert run(site, "restore") == (0 if earlier else 2)

    content = (site / LLAMA).read_bytes()
    assert content == (original if earlier else ours().replace(b"\n", b"\r\n"))


def test_git_checks_our_file_out_with_the_line_ends_of_unix() -> None:
    root = swap.SOURCE.parents[1]
    name = swap.SOURCE.relative_to(root).as_posix()
    rules = (root / ".gitattributes").read_text().splitlines()

    assert f"{name} text eol=lf" in rules


def test_a_link_in_git_is_no_record(site: Path) -> None:
    """Git has the path that it points to as its content."""
    shutil.rmtree(site / f"transformers-{VERSION}.dist-info")
    file, real = site / LLAMA, site / "real.py"
    file.rename(real)
    file.symlink_to(real)
    git(site, "init", "--quiet")
    git(site, "add", ".")
    git(site, "commit", "--quiet", "-m", "linked")

    assert swap.find(family="llama", site_packages=site).record == ""
    assert run(site, "install") == 0
    assert run(site, "status") == 0
    assert run(site, "restore") == 0
    assert file.is_symlink()


def test_a_git_that_does_not_answer_is_one_sentence(
    site: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.rmtree(site / f"transformers-{VERSION}.dist-info")
    folder = tmp_path / "programs"
    folder.mkdir()
    interpreter(folder, "exec sleep 30").rename(folder / "git")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(checkout, "TIMEOUT_S", 0.3)
    start = time.monotonic()

    assert run(site, "status") == 2

    assert time.monotonic() - start < 20
    assert "git does not answer within" in error_of(capsys)
