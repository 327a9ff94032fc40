"""An interruption anywhere leaves a working file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from eah import swap
from eah.swap import exchange, files
from tests.eah.swap.installs import error_of, ours, run, tree


def replace_old(place: swap.Place) -> None:
    swap.install(place)
    place.file.write_bytes(ours().replace(b"VERSION: Final", b'VERSION: Final = "0.0.1"\n#', 1))


def force_other(place: swap.Place) -> None:
    place.file.write_bytes(place.file.read_bytes() + b"# patched by hand\n")


PREPARATIONS: dict[str, Callable[[swap.Place], Any]] = {
    "install": lambda place: None,
    "install over ours": replace_old,
    "install by force": force_other,
    "restore": swap.install,
    "restore a forced one": lambda place: (force_other(place), swap.install(place, force=True)),
}


@contextmanager
def failing(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException], index: int, *, late: bool
) -> Iterator[list[int]]:
    """Make the call of that index to anything that changes files raise, before or after it acts."""
    calls = [0, 0]  # all, and those that raised

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] - 1 != index:
                return function(*args, **kwargs)
            if late:
                function(*args, **kwargs)
            calls[1] += 1  # not where there is no file to read
            raise error("injected")

        return called

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace", "chmod"):
            patch.setattr(os, name, wrap(getattr(os, name)))
        for name in ("replace", "unlink", "open"):
            patch.setattr(Path, name, wrap(getattr(Path, name)))
        patch.setattr(files.shutil, "copymode", wrap(shutil.copymode))
        yield calls


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("case", PREPARATIONS)
def test_an_interruption_anywhere_leaves_a_working_file(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch,
    case: str, error: type[BaseException], late: bool,
) -> None:  # fmt: skip
    change = swap.restore if case.startswith("restore") else swap.install
    options = {"force": True} if case == "install by force" else {}
    interrupted = injected = 0
    for index in range(100):
        copy = tmp_path / str(index)
        shutil.copytree(site, copy)
        place = swap.find(family="llama", site_packages=copy)
        PREPARATIONS[case](place)
        kept = place.original if place.original.is_file() else place.file
        original, old = kept.read_bytes(), place.file.read_bytes()
        with failing(monkeypatch, error, index, late=late) as calls:
            try:
                change(place, **options)
            except error:
                interrupted += 1

        injected += calls[1]
        content = place.file.read_bytes()
        assert content in (original, old, ours())
        assert content == original or place.original.read_bytes() == original
        if change is swap.install or index % 2:
            swap.install(place, force=True)
            assert (place.file.read_bytes(), place.original.read_bytes()) == (ours(), original)
        swap.restore(place)
        assert place.file.read_bytes() == original
        assert sorted(path.name for path in place.file.parent.iterdir()) == [
            "__init__.py", "configuration_llama.py", "modeling_llama.py"
        ]  # fmt: skip
        if calls[0] <= index:
            break
    else:
        pytest.fail("never got through")
    assert interrupted == injected > 8


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("owner", "name"), [(os, "fsync"), (files.shutil, "copymode"), (Path, "replace")]
)
def test_a_failed_write_leaves_no_temporary_file(
    site: Path, place: swap.Place, monkeypatch: pytest.MonkeyPatch,
    owner: Any, name: str, error: type[BaseException],
) -> None:  # fmt: skip
    before = tree(site)

    def full(*args: Any) -> None:
        raise error("injected")

    monkeypatch.setattr(owner, name, full)
    with pytest.raises(error):
        swap.install(place)

    assert tree(site) == before


@pytest.mark.parametrize("action", ["install", "restore"])
def test_a_folder_that_cant_be_written_is_one_sentence(
    site: Path, place: swap.Place, monkeypatch: pytest.MonkeyPatch, action: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if action == "restore":
        swap.install(place)
    before = tree(site)

    def refuse(path: Path, *args: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    if action == "install":
        read = Path.open
        monkeypatch.setattr(
            Path, "open", lambda path, mode="r", *args, **kwargs:
            refuse(path) if "w" in mode else read(path, mode, *args, **kwargs)
        )  # fmt: skip
    else:
        monkeypatch.setattr(Path, "replace", refuse)
    assert run(site, action) == 2
    monkeypatch.undo()

    error = error_of(capsys)
    assert "Permission denied" in error
    assert str(place.file.parent) in error
    assert "run this as the owner of that transformers, or use your own install" in error
    assert tree(site) == before


def test_an_original_read_before_another_install_is_the_one_kept(
    place: swap.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = place.file.read_bytes()
    found = swap.status(place)
    swap.install(place)  # by another process, since

    with monkeypatch.context() as patch:
        patch.setattr(exchange, "status", lambda place: found)
        swap.install(place)

    assert place.original.read_bytes() == original
