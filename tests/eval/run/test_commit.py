"""The commit that a result names is the project's, wherever its tree lies."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from eval.run import provenance

ROOT = Path(__file__).resolve().parents[3]
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.com")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *AUTHOR, "-C", str(folder), *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def make_repository(folder: Path) -> str:
    """Commit the project's file for exports, with its attributes, and return the commit."""
    folder.mkdir()
    git(folder, "init", "--quiet")
    for name in (".gitattributes", provenance.EXPORTED):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text((ROOT / name).read_text())
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "First")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def committed(tmp_path: Path) -> tuple[Path, str]:
    """Return a checkout and its commit."""
    return tmp_path / "project", make_repository(tmp_path / "project")


def commit_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str | None:
    monkeypatch.setattr(provenance, "ROOT", folder)
    return provenance.git_commit()


def test_of_a_checkout_with_local_changes_named(
    committed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, commit = committed
    assert commit_in(monkeypatch, folder) == commit

    (folder / ".gitattributes").write_text("")
    assert commit_in(monkeypatch, folder) == f"{commit}-dirty"


@pytest.mark.parametrize("where", ["alone", "other", "other/below"])
def test_of_an_exported_tree(
    committed: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    """Also where it lies in another repository, or at the top of one."""
    folder, commit = committed
    make_repository(tmp_path / "other")
    exported = tmp_path / where
    exported.mkdir(parents=True, exist_ok=True)
    git(folder, "archive", "--output", str(tmp_path / "project.tar"), "HEAD")
    subprocess.run(["tar", "-xf", tmp_path / "project.tar", "-C", exported], check=True)

    assert commit_in(monkeypatch, exported) == commit
    monkeypatch.setenv("PATH", "")
    assert commit_in(monkeypatch, exported) == commit


def test_a_copy_without_its_repository_has_none(
    committed: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of a repository around it either."""
    folder, _ = committed
    make_repository(tmp_path / "other")
    copied = shutil.copytree(folder, tmp_path / "other/below", ignore=lambda *_: [".git"])
    assert commit_in(monkeypatch, copied) is None

    (folder / ".git").rename(folder / "not-git")

    assert commit_in(monkeypatch, folder) is None
