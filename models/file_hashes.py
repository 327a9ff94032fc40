"""SHA-256 of whole files, with a cache, so that a file is read again only after it changed.

The cache is an SQLite file in the folder that the variable EAH_CACHE names, by default
`$XDG_CACHE_HOME/eah` or `~/.cache/eah`. Any number of processes may use it at once. If it can't be
used, a warning is logged and the files are read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from pathlib import Path
from threading import Event
from typing import Final

logger = logging.getLogger(__name__)

CACHE_VARIABLE: Final = "EAH_CACHE"
CACHE_FILE: Final = "file_hashes.sqlite"
# How long to wait while another process writes, which takes milliseconds.
LOCK_TIMEOUT_S: Final = 5.0
TABLE: Final = """CREATE TABLE IF NOT EXISTS files
                  (path BLOB PRIMARY KEY, version TEXT, hash TEXT, seal TEXT)"""
QUERY: Final = "SELECT hash, seal FROM files WHERE path = ?"
INSERT: Final = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)"

THREADS: Final = 4  # hashlib releases the GIL
BLOCK_BYTES: Final = 1 << 20
# From this size on, hashing takes seconds, and a terminal shows a progress bar.
PROGRESS_BYTES: Final = 2 << 30
# File systems round times, FAT to two seconds. A file that was written just before it was hashed
# could change again within the same rounded time, and its old hash would still seem valid. So the
# hash of such a file is not stored.
ROUNDING_NS: Final = 2_000_000_000

Row = tuple[bytes, str, str, str]
"""A row of the cache: path, version, hash, checksum."""


def file_hashes(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the SHA-256 of each file's contents, 64 hex digits, in the order of the paths.

    Raises:
        OSError: If a file can't be read.
    """
    files = {path: path.resolve() for path in paths}
    states = {file: file.stat() for file in files.values()}
    hashes = _use_cache({file: _version(state) for file, state in states.items()}, [])
    unknown = {file: state.st_size for file, state in states.items() if file not in hashes}
    if unknown:
        hashes |= _hash_and_store(unknown)
    return {path: hashes[file] for path, file in files.items()}


def cache_file() -> Path:
    """Return the file of the cache; errors as in `cache_folder`."""
    return cache_folder() / CACHE_FILE


def cache_folder() -> Path:
    """Return the folder for data that can be recreated: file hashes and converted checkpoints.

    Raises:
        RuntimeError: If the user has no home folder and no variable names another folder.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    standard = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification says to ignore relative paths.
    root = standard if standard.is_absolute() else Path.home() / ".cache"
    return root / "eah"


def _version(state: os.stat_result) -> str:
    """Return a string that differs after any change, even if the old mtime is set again.

    Only the kernel sets ctime. The inode differs if another file was renamed to this name.
    """
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"


def _hash_and_store(sizes: Mapping[Path, int]) -> dict[Path, str]:
    """Hash files in several threads, store the hashes of old enough files, and return all."""
    from tqdm import tqdm  # imported late: known hashes do not need it

    total = sum(sizes.values())
    hide = None if total > PROGRESS_BYTES else True  # None: hide outside of terminals
    stop = Event()
    with (
        tqdm(total=total, unit="B", unit_scale=True, desc="hash files", disable=hide) as bar,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        try:
            read = list(pool.map(lambda file: _read(file, bar.update, stop), sizes))
        finally:
            stop.set()  # otherwise the other threads would continue after Ctrl-C or an error
    if settled := [row for row, is_settled in read if is_settled]:
        _use_cache({}, settled)
    return {file: row[2] for file, (row, _) in zip(sizes, read, strict=True)}


def _read(path: Path, advance: Callable[[int], object], stop: Event) -> tuple[Row, bool]:
    """Hash a file; the second result is whether any later change will change its version."""
    digest = hashlib.sha256()
    start = time.time_ns()
    with path.open("rb", buffering=0) as file:
        # The version before reading: if the file changes during reading, the version differs after.
        state = os.fstat(file.fileno())
        while not stop.is_set() and (block := file.read(BLOCK_BYTES)):
            digest.update(block)
            advance(len(block))
    is_settled = max(state.st_mtime_ns, state.st_ctime_ns) + ROUNDING_NS < start
    return _row(path, _version(state), digest.hexdigest()), is_settled


def _row(path: Path, version: str, hash_: str) -> Row:
    """Return a row with a checksum, which SQLite lacks, so that damaged rows are detected."""
    content = b"\n".join((os.fsencode(path), version.encode(), hash_.encode()))
    return os.fsencode(path), version, hash_, hashlib.sha256(content).hexdigest()


def _use_cache(versions: Mapping[Path, str], rows: Sequence[Row]) -> dict[Path, str]:
    """Return the cached hashes of these versions of files, and add rows to the cache."""
    found: dict[Path, str] = {}
    try:
        import sqlite3  # imported late: not every Python is built with it

        file = cache_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        # IMMEDIATE: a transaction that reads first and writes later could fail without waiting.
        database = sqlite3.connect(file, timeout=LOCK_TIMEOUT_S, isolation_level="IMMEDIATE")
        with closing(database), database:
            database.execute(TABLE)
            for path, version in versions.items():
                for hash_, seal in database.execute(QUERY, (os.fsencode(path),)).fetchall():
                    if _row(path, version, str(hash_))[3] == seal:  # covers path and version
                        found[path] = str(hash_)
            if rows:  # a read-only cache can still be read
                database.executemany(INSERT, rows)
    except Exception as error:  # the run can do without the cache
        _warn(repr(error))
    return found


@cache  # once per process and reason
def _warn(reason: str) -> None:
    logger.warning(
        "the cache of file hashes can't be used (%s), so files are read again; delete the damaged "
        "file or set %s to a folder that can be written (default: ~/.cache/eah)",
        reason,
        CACHE_VARIABLE,
    )
