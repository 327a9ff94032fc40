"""Hashes follow every change of a file, unchanged files are read once, and no cache stops a run."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from models import file_hashes as module
from models.file_hashes import BLOCK_BYTES, ROUNDING_NS, cache_file, file_hashes

ROOT = Path(__file__).resolve().parents[2]
SIZE = 2 * BLOCK_BYTES + 12345
FAR_FUTURE_NS = 1 << 62


def file_hash(path: Path) -> str:
    return file_hashes([path])[path]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("EAH_CACHE", str(tmp_path / "cache"))
    module._warn.cache_clear()
    yield tmp_path / "cache"
    module._warn.cache_clear()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of files as they are opened."""
    names: list[str] = []
    real = Path.open

    def counted(self: Path, *arguments: Any, **keywords: Any) -> Any:
        names.append(self.name)
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", counted)
    return names


def read_at(moment_ns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the time at which files are read."""
    monkeypatch.setattr(module, "time", SimpleNamespace(time_ns=lambda: moment_ns))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read files long after they were written."""
    read_at(FAR_FUTURE_NS, monkeypatch)


@pytest.fixture
def file(tmp_path: Path, later: None) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def flip(path: Path, position: int) -> None:
    """Change one byte and set the times of reading and writing again."""
    before = path.stat()
    with open(path, "r+b") as content:
        content.seek(position)
        (byte,) = content.read(1)
        content.seek(position)
        content.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, SIZE])
def test_the_hash_is_that_of_the_whole_file(tmp_path: Path, size: int, later: None) -> None:
    content = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(content)

    assert [file_hash(path), file_hash(path)] == [sha256(content)] * 2


def test_many_files_keep_their_order_and_names(
    tmp_path: Path, later: None, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {f"{number}.bin": os.urandom(number) for number in (9, 3, 7, 1, 5, 0)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    opened.clear()
    (tmp_path / "link").symlink_to("7.bin")
    monkeypatch.chdir(tmp_path)
    paths = [Path(name) for name in (*contents, "link")]

    found = file_hashes([*paths, paths[0]])

    assert list(found) == paths
    assert found == {path: sha256(contents.get(path.name, contents["7.bin"])) for path in paths}
    assert sorted(opened) == sorted(contents)  # that with two names once


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(position=st.integers(0, SIZE - 1) | st.sampled_from([0, SIZE // 2, SIZE - 1]))
def test_one_flipped_byte_is_noticed_although_the_mtime_is_set_again(
    file: Path, position: int
) -> None:
    before = file_hash(file)

    flip(file, position)

    assert file_hash(file) == sha256(file.read_bytes()) != before


def test_an_unchanged_file_is_read_once(file: Path, opened: list[str]) -> None:
    hashes = {file_hash(file) for _ in range(3)}

    assert hashes == {sha256(file.read_bytes())}
    assert opened.count(file.name) == 2  # by the first call and by the line above


@pytest.mark.parametrize("change", ["mtime", "size", "content", "other file"])
def test_a_changed_file_is_read_again(file: Path, opened: list[str], change: str) -> None:
    before = file_hash(file)
    state, content = file.stat(), file.read_bytes()
    if change == "mtime":
        os.utime(file, ns=(0, state.st_mtime_ns - 10**9))
    elif change == "size":
        file.write_bytes(content + b"\0")
    elif change == "content":
        file.write_bytes(content[::-1])
    else:
        other = file.with_name("other")
        other.write_bytes(content[::-1])
        os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
        other.rename(file)
    opened.clear()

    after = file_hash(file)

    assert opened == [file.name]
    assert (after == before) is (change == "mtime")
    assert after == sha256(file.read_bytes())


@pytest.mark.parametrize("name", ["st_size", "st_mtime_ns", "st_ctime_ns", "st_ino"])
def test_a_version_covers_all_that_can_differ(file: Path, name: str) -> None:
    state = file.stat()
    names = ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
    other = {field: getattr(state, field) + (field == name) for field in names}

    assert module._version(SimpleNamespace(**other)) != module._version(state)  # type: ignore[arg-type]


@pytest.mark.parametrize(("nanoseconds", "times"), [(0, 2), (ROUNDING_NS, 2), (ROUNDING_NS + 1, 1)])
def test_the_hash_of_a_file_that_was_just_written_is_not_kept(
    tmp_path: Path,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    nanoseconds: int,
    times: int,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    opened.clear()
    state = path.stat()
    read_at(max(state.st_mtime_ns, state.st_ctime_ns) + nanoseconds, monkeypatch)

    assert {file_hash(path), file_hash(path)} == {sha256(b"1")}
    assert opened == [path.name] * times


def test_a_file_that_changes_while_it_is_read_is_read_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file_hash(file)
    os.utime(file)
    changes = [0]  # a byte that has been read when the first block is reported
    monkeypatch.setattr(tqdm, "update", lambda *_: changes and flip(file, changes.pop()))

    assert file_hash(file) == before
    assert file_hash(file) == sha256(file.read_bytes()) != before


@pytest.mark.parametrize("keep", [0, 1, 100, 5000])
def test_a_truncated_cache_gives_right_hashes(
    file: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    expected = file_hash(file)
    content = cache_file().read_bytes()
    assert len(content) > keep
    cache_file().write_bytes(content[:keep])

    assert {file_hash(file), file_hash(file)} == {expected}


def test_a_cache_of_another_kind_is_left_alone(
    file: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache_folder.mkdir()
    cache_file().write_text("my notes, which are no database\n" * 100)
    before = cache_file().read_bytes()

    assert {file_hash(file), file_hash(file)} == {sha256(file.read_bytes())}

    assert cache_file().read_bytes() == before
    assert len(caplog.messages) == 1
    assert "file is not a database" in caplog.text
    assert "set EAH_CACHE to a folder that can be written" in caplog.text


def test_no_damaged_byte_of_the_cache_makes_a_wrong_hash(tmp_path: Path, later: None) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    expected = file_hash(path)
    content = cache_file().read_bytes()
    used = [position for position, byte in enumerate(content) if byte]
    assert len(used) > 300

    for position in used:
        damaged = bytearray(content)
        damaged[position] ^= 1
        cache_file().write_bytes(damaged)
        assert file_hash(path) == expected


@pytest.mark.parametrize("what", ["no folder", "no home", "no sqlite", "locked", "read-only"])
def test_without_a_usable_cache_hashes_are_right_and_one_warning_appears(
    file: Path,
    cache_folder: Path,
    what: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = file_hash(file)
    flip(file, SIZE // 2)
    changed = sha256(file.read_bytes())
    if what == "no folder":
        monkeypatch.setenv("EAH_CACHE", str(file / "cache"))
    elif what == "no home":
        monkeypatch.delenv("EAH_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", raise_no_home)
    elif what == "no sqlite":
        monkeypatch.setitem(sys.modules, "sqlite3", None)
    elif what == "locked":
        monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.01)
        other = sqlite3.connect(cache_file(), isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
    else:
        real = sqlite3.connect
        monkeypatch.setattr(
            sqlite3, "connect", lambda path, **more: real(f"file:{path}?mode=ro", uri=True, **more)
        )

    assert {file_hash(file), file_hash(file)} == {changed} != {expected}

    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    if what == "locked":
        other.close()


def raise_no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_cache_that_can_only_be_read_is_used(
    file: Path,
    opened: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = file_hash(file)
    opened.clear()
    real = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda path, **more: real(f"file:{path}?mode=ro", uri=True, **more)
    )

    assert file_hash(file) == expected
    assert (opened, caplog.messages) == ([], [])


def python(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a program that reads files long after they were written."""
    start = f"""
import sys
from pathlib import Path
from models import file_hashes as module
module.time.time_ns = lambda: {FAR_FUTURE_NS}
"""
    return subprocess.Popen(
        [sys.executable, "-c", start + program, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    program = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
path = Path(sys.argv[1])
print(module.file_hashes([path])[path])
"""

    process = python(program, path)
    out, said = process.communicate()

    assert (process.returncode, out.strip()) == (0, sha256(b"content"))
    assert "can't be used" in said
    assert len(said.splitlines()) == 1


def test_processes_share_the_cache(tmp_path: Path, later: None, opened: list[str]) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(100):
        (folder / str(number)).write_bytes(os.urandom(number))
    # Each call opens the cache twice, and writes to it unless another process was faster.
    program = """
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, module.file_hashes([path])[path])
"""
    expected = {f"{path.name} {sha256(path.read_bytes())}" for path in folder.iterdir()}

    processes = [python(program, folder) for _ in range(3)]
    outcomes = [(process.communicate(), process.returncode) for process in processes]

    for (out, said), status in outcomes:
        assert (status, said) == (0, "")
        assert set(out.splitlines()) == expected
    opened.clear()
    found = file_hashes(folder.iterdir())
    assert {f"{path.name} {found[path]}" for path in found} == expected
    assert opened == []


@pytest.mark.parametrize(
    ("chosen", "standard", "expected"),
    [
        ("/chosen", "/xdg", "/chosen"),
        ("~/chosen", "/xdg", "/home/me/chosen"),
        (None, "/xdg", "/xdg/eah"),
        ("", "relative", "/home/me/.cache/eah"),
        (None, None, "/home/me/.cache/eah"),
    ],
)
def test_the_cache_lies_where_the_variables_say(
    chosen: str | None, standard: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("EAH_CACHE", chosen), ("XDG_CACHE_HOME", standard)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)

    assert cache_file() == Path(expected) / "file_hashes.sqlite"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("limit", "shows"), [(SIZE, False), (SIZE - 1, True)])
def test_a_terminal_shows_the_progress_of_large_files(
    file: Path, limit: int, shows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(module, "PROGRESS_BYTES", limit)

    file_hash(file)

    assert ("hash files" in terminal.getvalue()) is shows


def test_an_error_stops_the_other_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = 1 << 15
    with open(tmp_path / "sparse", "wb") as sparse:
        sparse.truncate(blocks * BLOCK_BYTES)
    read: list[int] = []
    counter = SimpleNamespace(update=lambda block: read.append(len(block)))
    monkeypatch.setattr(module, "hashlib", SimpleNamespace(sha256=lambda: counter))

    with pytest.raises(IsADirectoryError):
        file_hashes([tmp_path, tmp_path / "sparse"])

    assert len(read) < blocks


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        file_hash(tmp_path / "absent")


def test_neither_torch_nor_transformers_is_loaded() -> None:
    process = python("print({'torch', 'transformers'} & set(sys.modules))")

    assert process.communicate()[0].strip() == "set()"
