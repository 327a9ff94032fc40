"""The swap of the drop-in into an install of transformers, here always one made of a few files."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.models.llama import modeling_llama
from transformers.utils import import_utils

from eah import modeling_llama_eah as drop_in
from eah import swap

REAL_MODELS = Path(transformers.__file__).parent / "models"
DECODER = '''"""A decoder."""
from torch import nn

class {name}Attention(nn.Module):
    def forward(self, scores):
        return nn.functional.softmax(scores, dim=-1)

class {name}DecoderLayer(nn.Module):
    def __init__(self):
        self.self_attn = {name}Attention()

class {name}PreTrainedModel(nn.Module):
    pass

class {name}Model({name}PreTrainedModel):
    def __init__(self):
        self.layers = nn.ModuleList([{name}DecoderLayer()])

class {name}ForCausalLM({name}PreTrainedModel):
    pass

__all__ = [
    "{name}PreTrainedModel",
    "{name}Model",
    "{name}ForCausalLM",
]
# \u00e9\u6f22 and no newline at the end'''
FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in drop_in.VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)


def write_family(site: Path, family: str, content: str | bytes) -> Path:
    """Write a family's file as pip would have, with its row in RECORD."""
    folder = site / "transformers" / "models" / family
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").touch()
    file = folder / f"modeling_{family}.py"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).decode()
    row = f"{file.relative_to(site).as_posix()},sha256={digest.rstrip('=')},{file.stat().st_size}"
    with (site / "transformers-4.99.0.dist-info" / "RECORD").open("a") as record:
        record.write(row + "\n")
    return file


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site-packages"
    (site / "transformers").mkdir(parents=True)
    (site / "transformers-4.99.0.dist-info").mkdir()
    (site / "transformers-4.99.0.dist-info" / "RECORD").write_text(
        "transformers-4.99.0.dist-info/RECORD,,\n../../../bin/transformers,sha256=abc,12\n"
    )
    (site / "transformers" / "__init__.py").write_text('__version__ = "4.99.0"\n')
    for family, name in FAMILIES.items():
        write_family(site, family, DECODER.format(name=name))
    return site


@pytest.fixture
def place(site: Path) -> swap.Place:
    return swap.find(family="llama", site_packages=site)


def tree(site: Path) -> dict[str, bytes]:
    return {str(path.relative_to(site)): path.read_bytes()
            for path in sorted(site.rglob("*")) if path.is_file()}  # fmt: skip


def ours() -> bytes:
    return swap.SOURCE.read_bytes()


def run(site: Path, *arguments: str) -> int:
    return swap.main([*arguments, "--site-packages", str(site)])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on standard error."""
    error = capsys.readouterr().err
    assert error.startswith("eah: error: ")
    assert error.count("\n") == 1
    return error


# Install, status, restore -------------------------------------------------------------------------


def test_install_puts_ours_in_the_place_and_keeps_the_original_with_its_checksum(
    place: swap.Place,
) -> None:
    before = place.file.read_bytes()

    swap.install(place)

    assert place.file.read_bytes() == ours()
    assert place.original.name == "modeling_llama_original.py"
    assert place.original.read_bytes() == before
    assert place.checksum.read_text().split() == [
        hashlib.sha256(before).hexdigest(), "modeling_llama_original.py"
    ]  # fmt: skip


def test_restore_brings_every_byte_back_and_leaves_nothing(site: Path, place: swap.Place) -> None:
    before = tree(site)
    swap.install(place)
    assert tree(site) != before

    swap.restore(place)

    assert tree(site) == before


def test_what_is_there_already_is_not_written_again(
    site: Path, place: swap.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap.install(place)
    before, times = tree(site), [path.stat().st_mtime_ns for path in sorted(site.rglob("*.*"))]

    report = swap.install(place)

    assert "already" in report
    assert tree(site) == before
    assert [path.stat().st_mtime_ns for path in sorted(site.rglob("*.*"))] == times


def test_restoring_twice_and_restoring_nothing_is_fine(site: Path, place: swap.Place) -> None:
    before = tree(site)
    assert "nothing to restore" in swap.restore(place)
    swap.install(place)
    swap.restore(place)

    assert "nothing to restore" in swap.restore(place)

    assert tree(site) == before


def test_permissions_stay_as_they_were(place: swap.Place) -> None:
    place.file.chmod(0o664)
    mask = os.umask(0o077)
    try:
        swap.install(place)
        assert {stat.S_IMODE(path.stat().st_mode)
                for path in (place.file, place.original, place.checksum)} == {0o664}  # fmt: skip
        swap.restore(place)
    finally:
        os.umask(mask)

    assert stat.S_IMODE(place.file.stat().st_mode) == 0o664


def test_a_hard_link_to_the_original_keeps_it(place: swap.Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache.py"  # as uv and conda have
    cache.hardlink_to(place.file)
    before = cache.read_bytes()

    swap.install(place)

    assert cache.read_bytes() == before


def test_no_compiled_file_outlives_its_source(place: swap.Place) -> None:
    compiled = place.file.parent / "__pycache__"
    compiled.mkdir()
    names = ["modeling_llama.cpython-311.pyc", "modeling_llama.cpython-311.opt-1.pyc"]
    kept = compiled / "configuration_llama.cpython-311.pyc"
    kept.touch()
    for change in (swap.install, swap.restore):
        for name in [*names, "modeling_llama_original.cpython-311.pyc"]:
            (compiled / name).touch()

        change(place)

        assert list(compiled.iterdir()) == [kept]


def test_a_newer_version_of_ours_keeps_the_original(site: Path, place: swap.Place) -> None:
    before = tree(site)
    original = place.file.read_bytes()
    swap.install(place)
    place.file.write_bytes(
        ours().replace(
            f'VERSION: Final = "{drop_in.VERSION}"'.encode(), b'VERSION: Final = "0.0.1"'
        )
    )
    old = swap.status(place)
    assert (old.kind, old.version, old.current) == ("ours", "0.0.1", False)
    assert "EAH 0.0.1 (not this version's file)" in swap.describe(place)

    swap.install(place)

    assert place.file.read_bytes() == ours()
    assert place.original.read_bytes() == original
    swap.restore(place)
    assert tree(site) == before


def test_status_says_what_is_there(
    site: Path, place: swap.Place, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> str:
        assert run(site, "status") == 0
        return capsys.readouterr().out

    assert said() == f"transformers 4.99.0: {place.file} is transformers' own\n"
    swap.install(place)
    settings = drop_in.settings_from_environment({})
    assert said() == (
        f"transformers 4.99.0: {place.file} is EAH {drop_in.VERSION}\nsettings here: {settings}\n"
    )
    place.file.write_text("x = 1\n")
    assert said().endswith(" is neither transformers' own nor EAH's\n")
    place.file.unlink()
    assert said().endswith(" is missing\n")


def test_status_shows_the_settings_of_the_environment(
    site: Path, place: swap.Place, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    swap.install(place)
    monkeypatch.setenv("EAH_LAYERS", "1,3")

    assert run(site, "status") == 0

    assert "settings here: layers 1, 3; " in capsys.readouterr().out


@pytest.mark.parametrize("action", ["install", "status"])
def test_a_bad_variable_is_one_sentence_and_changes_nothing(
    site: Path, action: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(site)
    monkeypatch.setenv("EAH_LAYERS", "second")

    assert run(site, action) == 2

    assert "EAH_LAYERS='second' can't be used" in error_of(capsys)
    assert tree(site) == before


def test_a_bad_variable_does_not_keep_one_from_restoring(
    site: Path, place: swap.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(site)
    swap.install(place)
    monkeypatch.setenv("EAH_LAYERS", "second")

    assert run(site, "restore") == 0

    assert tree(site) == before


# A file of unknown origin -------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [b"\n", b"\r\n# \xff\xfe", b'\nVERSION: Final = "1.0"\n'])
def test_something_else_is_only_replaced_by_force_and_comes_back(
    site: Path, place: swap.Place, ending: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    place.file.write_bytes(place.file.read_bytes() + b"# patched by hand" + ending)
    before = tree(site)

    assert run(site, "install") == 2
    assert "pass --force to keep it" in error_of(capsys)
    assert tree(site) == before

    assert run(site, "install", "--force") == 0
    assert place.file.read_bytes() == ours()
    assert run(site, "install") == 0
    assert run(site, "restore") == 0
    assert tree(site) == before
    assert run(site, "restore") == 0
    assert tree(site) == before


def test_restore_does_not_overwrite_a_file_of_unknown_origin(
    site: Path, place: swap.Place, capsys: pytest.CaptureFixture[str]
) -> None:
    original = tree(site)
    swap.install(place)
    place.file.write_text("written_by = 'hand'\n")
    before = tree(site)

    assert run(site, "restore") == 2

    assert "delete the one of them that you don't want" in error_of(capsys)
    assert tree(site) == before
    place.file.unlink()
    assert run(site, "restore") == 0
    assert tree(site) == original


# What was left, lost or damaged -------------------------------------------------------------------


def test_an_original_left_by_an_older_transformers_is_not_put_back(
    site: Path, place: swap.Place
) -> None:
    before = tree(site)
    swap.install(place)
    # pip replaces the file that it knows, and leaves the ones that it doesn't.
    place.original.write_text("of = 'an older transformers'\n")
    digest = hashlib.sha256(place.original.read_bytes()).hexdigest()
    place.checksum.write_text(f"{digest}  {place.original.name}\n")
    place.file.write_bytes(before["transformers/models/llama/modeling_llama.py"])
    assert swap.status(place).kind == "original"

    swap.restore(place)

    assert tree(site) == before


def test_an_original_left_is_replaced_by_a_new_install(site: Path, place: swap.Place) -> None:
    before = tree(site)
    place.original.write_text("of = 'an older transformers'\n")

    swap.install(place)

    assert place.original.read_bytes() == before["transformers/models/llama/modeling_llama.py"]
    swap.restore(place)
    assert tree(site) == before


@pytest.mark.parametrize("kept", [["original"], ["checksum"], ["original", "checksum"]])
def test_restore_removes_what_an_interrupted_one_left(
    site: Path, place: swap.Place, kept: list[str]
) -> None:
    before = tree(site)
    (place.file.parent / ".modeling_llama_original.py.123.eah").touch()  # of a killed process
    for name in kept:
        shutil.copy(place.file, getattr(place, name))
    assert swap.status(place).kind == "original"

    swap.restore(place)

    assert tree(site) == before


@pytest.mark.parametrize("action", ["restore", "install"])
@pytest.mark.parametrize("damage", ["changed", "gone", "both damaged"])
def test_a_damaged_original_is_refused(
    site: Path, place: swap.Place, action: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    swap.install(place)
    if damage == "gone":
        place.original.unlink()
    else:
        place.original.write_bytes(place.original.read_bytes()[:-1])
    if damage == "both damaged":
        place.checksum.write_bytes(b"\xff")
    before = tree(site)

    assert run(site, action) == 2

    error = error_of(capsys)
    assert "reinstall transformers 4.99.0" in error
    assert "is missing" in error if damage == "gone" else "its checksum differs" in error
    assert tree(site) == before


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"several words"])
def test_a_damaged_checksum_does_not_matter_to_transformers_own(
    site: Path, place: swap.Place, damaged: bytes
) -> None:
    before = tree(site)
    swap.install(place)
    place.checksum.write_bytes(damaged)

    assert run(site, "restore") == 0

    assert tree(site) == before


def test_status_of_another_family_lives_with_a_damaged_original(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = swap.find(family="qwen2", site_packages=site)
    swap.install(place)
    for damage in (b"\xff def (", None):
        place.original.unlink() if damage is None else place.original.write_bytes(damage)

        assert run(site, "status", "--model", "qwen2") == 0
        output = capsys.readouterr().out
        assert "(not this version's file)" in output
        missing = "modeling_qwen2_original.py is missing; reinstall transformers\n"
        assert (missing in output) == (damage is None)


def test_a_missing_file_is_put_back_by_restore(
    site: Path, place: swap.Place, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(site)
    swap.install(place)
    place.file.unlink()

    assert run(site, "install") == 2
    assert "is missing; restore it, or reinstall transformers" in error_of(capsys)
    assert run(site, "restore") == 0
    assert tree(site) == before
    place.file.unlink()
    assert run(site, "restore") == 2
    assert "reinstall transformers 4.99.0" in error_of(capsys)


# Interruptions ------------------------------------------------------------------------------------


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
    calls = [0]

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] - 1 != index:
                return function(*args, **kwargs)
            if late:
                function(*args, **kwargs)
            raise error("injected")

        return called

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace", "chmod"):
            patch.setattr(os, name, wrap(getattr(os, name)))
        for name in ("replace", "unlink", "open"):
            patch.setattr(Path, name, wrap(getattr(Path, name)))
        patch.setattr(swap.shutil, "copymode", wrap(shutil.copymode))
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
    interrupted = 0
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

        content = place.file.read_bytes()
        assert content in (original, old, ours())
        assert content == original or place.original.read_bytes() == original
        if change is swap.install or index % 2:
            swap.install(place, force=True)
            assert (place.file.read_bytes(), place.original.read_bytes()) == (ours(), original)
        swap.restore(place)
        assert place.file.read_bytes() == original
        assert sorted(path.name for path in place.file.parent.iterdir()) == [
            "__init__.py", "modeling_llama.py"
        ]  # fmt: skip
        if calls[0] <= index:
            break
    else:
        pytest.fail("never got through")
    assert interrupted == index > 2


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("owner", "name"), [(os, "fsync"), (swap.shutil, "copymode"), (Path, "replace")]
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
    assert "run this as the owner of that transformers, or install one of your own" in error
    assert tree(site) == before


def test_an_original_read_before_another_install_is_the_one_kept(
    place: swap.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = place.file.read_bytes()
    found = swap.status(place)
    swap.install(place)  # by another process, since

    with monkeypatch.context() as patch:
        patch.setattr(swap, "status", lambda place: found)
        swap.install(place)

    assert place.original.read_bytes() == original


# Where transformers is ----------------------------------------------------------------------------


def interpreter(tmp_path: Path, body: str) -> Path:
    """Write something that can be run as an interpreter."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_an_interpreter_is_asked_for_its_transformers(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = interpreter(tmp_path, f'PYTHONPATH="{site}" exec "{sys.executable}" -S "$@"')
    (tmp_path / "here" / "transformers").mkdir(parents=True)
    (tmp_path / "here" / "transformers" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path / "here")

    place = swap.find(family="llama", python=python)

    assert place.package == site / "transformers"
    assert swap.main(["install", "--python", str(python)]) == 0
    assert place.file.read_bytes() == ours()
    assert swap.main(["restore", "--python", str(python)]) == 0


def test_what_an_interpreter_prints_at_its_start_is_no_path(site: Path, tmp_path: Path) -> None:
    python = interpreter(tmp_path, f"echo hello; echo '{site}/transformers/__init__.py'")

    assert swap.find(family="llama", python=python).package == site / "transformers"


@pytest.mark.parametrize("kind", ["nothing", "fails", "folder", "no program"])
def test_an_interpreter_that_cant_be_run_is_one_sentence(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    python = interpreter(tmp_path, "exit 3")
    if kind == "nothing":
        python.unlink()
    elif kind == "folder":
        python = tmp_path
    elif kind == "no program":
        python.chmod(0o644)

    assert swap.main(["status", "--python", str(python)]) == 2

    error = error_of(capsys)
    assert f"--python {python} can't be run (" in error
    assert "name an interpreter" in error


@pytest.mark.parametrize("printed", ["echo", "true"])
def test_an_interpreter_without_transformers_is_one_sentence(
    tmp_path: Path, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    python = interpreter(tmp_path, printed)

    assert swap.main(["install", "--python", str(python)]) == 2

    assert f"{python} has no transformers; install it there" in error_of(capsys)


@pytest.mark.parametrize("left", ["nothing", "a folder"])
def test_a_folder_without_transformers_is_one_sentence(
    tmp_path: Path, left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if left == "a folder":  # as pip leaves it, where EAH was swapped in
        (tmp_path / "transformers" / "models" / "llama").mkdir(parents=True)

    assert run(tmp_path, "status") == 2

    assert f"{tmp_path} has no transformers; install it there" in error_of(capsys)


@pytest.mark.parametrize("left", ["nothing", "a folder"])
def test_a_running_interpreter_without_transformers_is_one_sentence(
    tmp_path: Path, left: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if left == "a folder":
        (tmp_path / "transformers").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "transformers")

    assert swap.main(["status"]) == 2

    assert f"{sys.executable} has no transformers" in error_of(capsys)


def test_the_running_interpreter_is_meant_if_none_is_named(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(site)])
    monkeypatch.delitem(sys.modules, "transformers")

    assert swap.find(family="llama").package == site / "transformers"


@pytest.mark.parametrize("missing", ["dist-info", "RECORD", "row", "hash"])
def test_a_checkout_is_one_sentence(
    site: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = site / "transformers-4.99.0.dist-info" / "RECORD"
    if missing == "dist-info":
        shutil.rmtree(record.parent)
    elif missing == "RECORD":
        record.unlink()
    else:
        rows = record.read_text()
        row = "" if missing == "row" else r"\1,,"
        record.write_text(re.sub(r"(transformers/models/llama/[^,]*),.*", row, rows))

    assert run(site, "install") == 2

    error = error_of(capsys)
    assert "is a checkout (editable), or its records are incomplete" in error
    assert "with the original beside it as modeling_llama_original.py" in error


def test_other_packages_and_padded_hashes_do_not_confuse_it(site: Path) -> None:
    other = site / "transformers-0.1.dist-info"  # as an interrupted upgrade leaves it
    other.mkdir()
    (other / "RECORD").write_text("")
    (site / "transformers_stream_generator-0.0.5.dist-info").mkdir()
    record = site / "transformers-4.99.0.dist-info" / "RECORD"
    record.write_text(re.sub(r"(sha256=.{43}),", r"\1=,", record.read_text()))

    place = swap.find(family="llama", site_packages=site)

    assert place.version == "4.99.0"
    assert swap.status(place).kind == "original"


def test_a_zip_file_is_one_sentence(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = shutil.make_archive(str(tmp_path / "site"), "zip", site)

    assert run(Path(archive), "install") == 2

    assert "is in a zip file; install it as a folder" in error_of(capsys)


def test_a_zip_file_of_the_running_interpreter_is_one_sentence(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = shutil.make_archive(str(tmp_path / "site"), "zip", site)
    monkeypatch.setattr(sys, "path", [archive])
    monkeypatch.delitem(sys.modules, "transformers")

    assert swap.main(["status"]) == 2

    assert "is in a zip file" in error_of(capsys)


@pytest.mark.parametrize("family", ["camel", "", "../models/camel", "llama/", "ll.ma"])
def test_a_family_that_is_not_there_is_one_sentence(
    site: Path, family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(site)

    assert run(site, "install", "--model", family) == 2

    assert "--model is the name of one of its folders in models/" in error_of(capsys)
    assert tree(site) == before


# Other families -----------------------------------------------------------------------------------

VISION = "class ClipTextModel(nn.Module):\n    self.layers = 1\n\nclass ClipModel:\n    pass\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (DECODER.format(name="Clip") + "\n" + VISION, "defines ClipModel, ClipTextModel"),
        ("x = 1\n", "defines no model"),
        (DECODER.format(name="Opt").replace("self.layers", "self.decoder"), "defines OptModel"),
        (DECODER.format(name="Neo").replace("self_attn", "attention"), "defines NeoModel"),
        (DECODER.format(name="Flash").replace("softmax", "kernel"), "neither softmax nor scaled"),
    ],
    ids=["two models", "none", "encoder and decoder", "no self_attn", "no map"],
)
def test_a_family_that_cant_be_shared_is_refused(
    site: Path, content: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_family(site, "strange", content)
    before = tree(site)

    assert run(site, "install", "--model", "strange", "--force") == 2

    assert said in error_of(capsys)
    assert tree(site) == before
    assert run(site, "status", "--model", "strange") == 0


@pytest.mark.parametrize("call", ["scaled_dot_product_attention(", "ALL_ATTENTION_FUNCTIONS["])
def test_a_family_with_another_seam_is_accepted(site: Path, call: str) -> None:
    write_family(site, "new", DECODER.format(name="New").replace("softmax(", call))

    assert run(site, "install", "--model", "new") == 0


def test_another_familys_file_exports_its_own_names(site: Path) -> None:
    place = swap.find(family="qwen2", site_packages=site)

    swap.install(place)

    text = place.file.read_text()
    names = ["Qwen2ForCausalLM", "Qwen2Model", "Qwen2PreTrainedModel"]
    assert text == ours().decode().replace(drop_in.LAZY_EXPORTS, swap.lazy_exports(names))
    assert set(re.findall(r"^class (\w+)\($", text, re.MULTILINE)) == {*names, "SharingAttention"}
    assert swap.status(place).current
    assert swap.install(place).endswith("already")


def test_a_family_without_a_list_of_names_needs_none(site: Path) -> None:
    old = DECODER.format(name="Old").split("__all__")[0]
    write_family(site, "old", old)

    assert run(site, "install", "--model", "old") == 0

    assert swap.status(swap.find(family="old", site_packages=site)).current


def test_two_families_are_swapped_and_restored_each_on_its_own(
    site: Path, place: swap.Place
) -> None:
    before = tree(site)
    mistral = swap.find(family="mistral", site_packages=site)
    swap.install(place)
    swap.install(mistral)
    assert (swap.status(place).current, swap.status(mistral).current) == (True, True)

    swap.restore(place)

    assert (swap.status(place).kind, swap.status(mistral).kind) == ("original", "ours")
    swap.restore(mistral)
    assert tree(site) == before


# The command --------------------------------------------------------------------------------------


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


# How transformers finds names ---------------------------------------------------------------------

NAMES = sorted(modeling_llama.__all__)


def in_order(monkeypatch: pytest.MonkeyPatch, *, reverse: bool, last: str = "") -> None:
    """Make folders list their files by name, or the other way round; one of them last of all."""
    scan, names = os.scandir, os.listdir

    def key(name: str) -> tuple[bool, str]:
        return (name == last) != reverse, name

    class Scan(list[Any]):
        def __enter__(self) -> Scan:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr(os, "scandir", lambda path: Scan(
        sorted(scan(path), key=lambda entry: key(entry.name), reverse=reverse)))  # fmt: skip
    monkeypatch.setattr(os, "listdir", lambda path: sorted(names(path), key=key, reverse=reverse))


def homes(folder: Path) -> dict[str, str]:
    """Return the file of each name, as `_LazyModule` finds it."""
    import_utils.define_import_structure.cache_clear()
    structure = import_utils.define_import_structure(str(folder))
    spread = import_utils.spread_import_structure(
        import_utils.create_import_structure_from_path(str(folder))
    )
    assert list(structure.items()) == list(spread.items())
    lazy = import_utils._LazyModule("lazy", str(folder / "__init__.py"), structure)
    found = {}
    for modules in structure.values():
        for module, names in modules.items():
            found.update(dict.fromkeys(names, module))
    assert lazy._class_to_module == found
    return found


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of models in which llama's and qwen2's file are ours."""
    models = tmp_path / "models"
    for family in ("bert", "albert", "llama", "mistral", "qwen2"):
        shutil.copytree(REAL_MODELS / family, models / family,
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    (models / "__init__.py").touch()
    for family in ("llama", "qwen2"):
        file = models / family / f"modeling_{family}.py"
        if b"SharingAttention" not in file.read_bytes():
            place = swap.Place(family, tmp_path, "4.99.0", "")
            swap.install(place, force=True)
    return models


def test_the_names_in_our_file_are_those_of_transformers() -> None:
    assert len(NAMES) == 6
    assert swap.lazy_exports(NAMES) == drop_in.LAZY_EXPORTS


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_names_are_found_in_ours_whichever_file_comes_first(
    models: Path, family: str, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order(monkeypatch, reverse=reverse)
    original = (models / family / f"modeling_{family}_original.py").read_text()
    exported = re.findall(r'"(\w+)"', original.split("__all__ = ")[1])

    found = homes(models / family)

    assert len(exported) >= 6
    assert {found[name] for name in exported} == {f"modeling_{family}"}
    assert found[FAMILIES[family] + "Config"] == f"configuration_{family}"


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("last", ["llama", "qwen2", "albert"])
def test_names_are_found_in_ours_among_other_families(
    models: Path, last: str, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order(monkeypatch, reverse=reverse, last=last)
    listed = [name for name in os.listdir(models) if (models / name).is_dir()]
    assert listed.index(last) == len(listed) - 1

    found = homes(models)

    assert {found[name] for name in NAMES} == {"llama.modeling_llama"}
    assert found["Qwen2ForCausalLM"] == "qwen2.modeling_qwen2"
    assert found["MistralForCausalLM"] == "mistral.modeling_mistral"
    assert found["BertModel"] == "bert.modeling_bert"


@pytest.mark.parametrize("reverse", [False, True])
def test_without_the_names_in_our_file_the_order_of_the_files_decides(
    models: Path, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What LAZY_EXPORTS is for."""
    file = models / "llama" / "modeling_llama.py"
    file.write_text(file.read_text().replace(drop_in.LAZY_EXPORTS, ""))
    in_order(monkeypatch, reverse=reverse)

    assert homes(models / "llama")["LlamaModel"] == "modeling_llama_original"
