"""Each state of `status`, made in a fresh install, and what install and restore do from there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from eah import modeling_llama_eah as drop_in
from eah import swap
from eah.swap import repair
from tests.eah.swap.installs import (
    DECODER,
    VERSION,
    error_of,
    git,
    ours,
    row,
    run,
    tree,
    write_wheel,
)

ORIGINAL = DECODER.format(name="Llama").encode()
OLD_VERSION, OLD = "4.98.0", ORIGINAL.replace(b"A decoder", b"An older decoder")
PATCHED = ORIGINAL.replace(b"    pass", b"    layer = os.environ['LAYER_NUM']")
LLAMA = "transformers/models/llama/modeling_llama.py"
LAYOUTS = ("records", "nothing", "git")


class Install:
    """An install of transformers of some layout, in which states are made."""

    def __init__(self, site: Path, layout: str) -> None:
        self.site, self.layout, self.file = site, layout, site / LLAMA
        self.original = self.file.with_name("modeling_llama_original.py")
        self.note = self.file.with_name("modeling_llama_original.sha256")
        if layout == "git":
            git(site, "init", "--quiet")
        self.upgrade(VERSION, ORIGINAL)

    @property
    def place(self) -> swap.Place:
        return swap.find(family="llama", site_packages=self.site)

    def upgrade(self, version: str, content: bytes) -> None:
        """Put another version there, as pip or git do: files they don't know stay."""
        for folder in self.site.glob("*.dist-info"):
            shutil.rmtree(folder)
        (self.site / "transformers" / "__init__.py").write_text(f"__version__ = '{version}'\n")
        self.file.write_bytes(content)
        if self.layout == "records":
            info = self.site / f"transformers-{version}.dist-info"
            info.mkdir()
            (info / "RECORD").write_text(row(LLAMA, content))
        if self.layout == "git":
            git(self.site, "add", "transformers/__init__.py", LLAMA)
            git(self.site, "commit", "--quiet", "--allow-empty", "-m", version)

    def by_hand(self) -> None:
        self.file.rename(self.original)
        self.file.write_bytes(ours())

    def swap(self) -> None:
        swap.install(self.place)


def another_version(install: Install) -> None:
    install.upgrade(OLD_VERSION, OLD)
    install.swap()
    install.upgrade(VERSION, ORIGINAL)


def another_version_by_hand(install: Install) -> None:
    install.upgrade(OLD_VERSION, OLD)
    install.by_hand()
    install.upgrade(VERSION, ORIGINAL)


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\nEDITED = True\n")


class Case(NamedTuple):
    """A state, and what is expected.

    Attributes:
        steps: What makes the state.
        code: Exit status of `status`.
        said: What its text contains.
        install: Part of the error with which install refuses; None if it swaps.
        restore: The same of restore; None if the original is back; "" if the file stays as it is.
        replaced: What install and restore move out of the way rather than lose.
        kept: What install keeps as the original.
    """

    steps: Callable[[Install], object]
    code: int
    said: str
    install: str | None = None
    restore: str | None = None
    replaced: bytes | None = None
    kept: bytes = ORIGINAL


CHOICE = "delete the one of modeling_llama.py and modeling_llama_original.py that you don't want"
CASES: dict[str, Case] = {
    "untouched": Case(lambda _: None, 0, "is transformers' own"),
    "swapped": Case(Install.swap, 0, f"is EAH {drop_in.VERSION}\n"),
    "by hand": Case(Install.by_hand, 0, f"is EAH {drop_in.VERSION}\n"),
    "overwritten": Case(
        lambda i: i.file.write_bytes(ours()), 1,
        "wrong: the original, modeling_llama_original.py, is missing; get the original back: ",
    ),
    "swapped, the kept original gone": Case(
        lambda i: (i.swap(), i.original.unlink()), 1, "modeling_llama_original.py, is missing"
    ),
    "by hand twice": Case(
        lambda i: (i.by_hand(), i.by_hand()), 1,
        "wrong: modeling_llama_original.py is EAH's file, not the original; get the original back",
    ),
    "kept of another version": Case(
        lambda i: (another_version(i), i.file.write_bytes(ours())), 1,
        "wrong: modeling_llama_original.py is of another transformers (4.98.0), not of this 4.99.0",
        replaced=OLD,
    ),
    "left after an upgrade": Case(
        another_version, 1, "wrong: modeling_llama_original.py is left over from an earlier swap"
    ),
    "a note left": Case(
        lambda i: (i.swap(), i.original.replace(i.file)), 1,
        "modeling_llama_original.sha256 is left over from an earlier swap",
    ),
    "ours edited": Case(
        lambda i: (i.swap(), edit(i.file)), 1, f"is EAH {drop_in.VERSION} (not this version's file)"
    ),
    "ours of another version": Case(
        lambda i: (i.swap(), i.file.write_bytes(ours().replace(
            f'VERSION: Final = "{drop_in.VERSION}"'.encode(), b'VERSION: Final = "0.0.1"'))), 1,
        "is EAH 0.0.1 (not this version's file)",
    ),
    "kept edited": Case(
        lambda i: (i.swap(), edit(i.original)), 1,
        "wrong: modeling_llama_original.py is not what was kept (its checksum differs)",
        replaced=ORIGINAL + b"\nEDITED = True\n",
    ),
    "patched": Case(
        lambda i: i.file.write_bytes(PATCHED), 1, "wrong: it was edited, or is another project's",
        install="pass --force to keep it as the original", restore="",
    ),
    "patched, installed by force": Case(
        lambda i: (i.file.write_bytes(PATCHED), swap.install(i.place, force=True)), 0,
        f"is EAH {drop_in.VERSION}\n", kept=PATCHED,
    ),
    "patched after a swap": Case(
        lambda i: (i.swap(), i.file.write_bytes(PATCHED)), 1, CHOICE, CHOICE, CHOICE
    ),
    "patched after a swap, kept edited": Case(
        lambda i: (i.swap(), i.file.write_bytes(PATCHED), edit(i.original)), 1,
        CHOICE, CHOICE, CHOICE,
    ),
    "missing": Case(
        lambda i: (i.swap(), i.file.unlink()), 1,
        "is missing\nwrong: code that imports modeling_llama.py fails; run: ",
        install="is missing; run: python -m eah.swap restore --file ",
    ),
    "missing, nothing kept": Case(
        lambda i: i.file.unlink(), 1, "wrong: code that imports modeling_llama.py fails",
        install="is missing; run: python -m eah.swap restore --file ",
    ),
    "left after an upgrade, by hand": Case(
        another_version_by_hand, 1, "move it to modeling_llama_original.py.replaced: ",
        replaced=OLD,
    ),
    "installed by force, then the original put back": Case(
        lambda i: (i.file.write_bytes(PATCHED), swap.install(i.place, force=True),
                   i.file.write_bytes(ORIGINAL)), 1,
        "move it to modeling_llama_original.py.replaced: ", replaced=PATCHED,
    ),
    "another version kept by hand": Case(
        lambda i: (another_version_by_hand(i), i.file.write_bytes(ours())), 1,
        "wrong: modeling_llama_original.py is not the original (its checksum differs)",
        replaced=OLD,
    ),
}  # fmt: skip
# Where nothing records the original, these can't be told from others.
UNRECORDED = {
    "by hand": Case(Install.by_hand, 0, "by its content; no record or note names it"),
    "left after an upgrade": Case(another_version, 1, "is left over from", replaced=OLD),
    "installed by force, then the original put back": Case(
        lambda i: (i.file.write_bytes(PATCHED), swap.install(i.place, force=True),
                   i.file.write_bytes(ORIGINAL)), 1, CHOICE, CHOICE, CHOICE,
    ),
    "left after an upgrade, by hand": Case(another_version_by_hand, 1, CHOICE, CHOICE, CHOICE),
    "another version kept by hand": Case(
        lambda i: (another_version_by_hand(i), i.file.write_bytes(ours())), 0,
        "by its content; no record or note names it", kept=OLD,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find the wheel of this version, at once."""
    wheel = write_wheel(tmp_path, {LLAMA: ORIGINAL})
    monkeypatch.setattr(
        repair, "_download", lambda command, folder: str(shutil.copy(wheel, folder))[:0]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_a_state_is_told_and_left(
    site: Path, name: str, layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = UNRECORDED.get(name, CASES[name]) if layout == "nothing" else CASES[name]
    install = Install(site, layout)
    case.steps(install)
    before = tree(site)

    assert run(site, "status") == case.code
    output = capsys.readouterr()
    assert case.said in output.out
    assert output.err == ""
    assert ("would use: layers 1" in output.out) == ("is EAH " in output.out)
    assert (case.code == 1) == ("\nwrong: " in output.out)
    assert tree(site) == before
    copy = tmp_path / "copy"
    shutil.copytree(site, copy)
    _check_install(copy, case, before, capsys)
    _check_restore(site, case, before, capsys)


def _check_install(
    site: Path, case: Case, before: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(site, "install") == (2 if case.install else 0)
    if case.install:
        assert case.install in error_of(capsys)
        assert tree(site) == before
        return
    folder = site / Path(LLAMA).parent
    assert (folder / "modeling_llama.py").read_bytes() == ours()
    assert (folder / "modeling_llama_original.py").read_bytes() == case.kept
    _check_replaced(folder, case)
    said = f"what was kept before is {folder}/modeling_llama_original.py.replaced\n"
    assert (said in capsys.readouterr().err) == (case.replaced is not None)
    assert run(site, "status") == 0
    capsys.readouterr()


def _check_restore(
    site: Path, case: Case, before: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(site, "restore") == (2 if case.restore else 0)
    if case.restore is not None:
        assert tree(site) == before
        assert case.restore in capsys.readouterr().err
        return
    folder = site / Path(LLAMA).parent
    assert (folder / "modeling_llama.py").read_bytes() == case.kept
    _check_replaced(folder, case)
    assert {path.name for path in folder.iterdir() if "replaced" not in path.name} == {
        "__init__.py", "configuration_llama.py", "modeling_llama.py"
    }  # fmt: skip


def _check_replaced(folder: Path, case: Case) -> None:
    replaced = folder / "modeling_llama_original.py.replaced"
    assert (replaced.read_bytes() if replaced.exists() else None) == case.replaced


def test_another_version_that_is_swapped_by_hand_is_kept_by_force(site: Path) -> None:
    install = Install(site, "records")
    install.file.write_bytes(PATCHED)
    install.by_hand()
    assert run(site, "status") == 1

    assert run(site, "install", "--force") == 0

    assert install.original.read_bytes() == PATCHED
    assert run(site, "status") == 0
    assert run(site, "restore") == 0
    assert install.file.read_bytes() == PATCHED


def test_what_is_kept_is_put_back_by_force(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install = Install(site, "records")
    install.swap()
    edit(install.original)
    edited = install.original.read_bytes()
    monkeypatch.setattr(repair, "_download", lambda command, folder: "no index here")
    assert run(site, "restore") == 2
    assert "--force puts back what is kept" in error_of(capsys)

    assert run(site, "restore", "--force") == 0

    assert install.file.read_bytes() == edited
    assert os.listdir(install.file.parent).count("modeling_llama_original.py") == 0
