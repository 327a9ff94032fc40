"""SHA-256 of whole files, with a cache, so that a file is read again only after it changed.

The cache is an SQLite file in the folder that the variable EAH_CACHE names, by default
`$XDG_CACHE_HOME/eah` or `~/.cache/eah`. Any number of processes may use it at once. If it can't be
used, a warning says so and the files are read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final

from tqdm import tqdm

if TYPE_CHECKING:
    import sqlite3

logger = logging.getLogger(__name__)

CACHE_VARIABLE: Final = "EAH_CACHE"
CACHE_FILE: Final = "file_hashes.sqlite"
# How long to wait for another process that writes, which takes it milliseconds.
LOCK_TIMEOUT_S: Final = 5.0
TABLE: Final = """CREATE TABLE IF NOT EXISTS files
                  (path BLOB PRIMARY KEY, version TEXT, hash TEXT, seal TEXT)"""

THREADS: Final = 4  # hashlib releases the GIL
BLOCK_BYTES: Final = 1 << 20
# More than this takes seconds, so a terminal gets a progress bar.
PROGRESS_BYTES: Final = 2 << 30
# File systems round times, FAT to two seconds. A file that was written just before it was read
# could be written again within the same rounded time, and its old hash would be taken for the new
# one. The hash of such a file is not kept.
ROUNDING_NS: Final = 2_000_000_000


@dataclass(frozen=True, slots=True)
class _Entry:
    """The hash of one version of a file."""

    path: Path
    version: str
    hash: str

    @property
    def seal(self) -> str:
        """Checksum of the entry; SQLite has none, and a damaged entry must not become a hash."""
        content = b"\n".join((os.fsencode(self.path), self.version.encode(), self.hash.encode()))
        return hashlib.sha256(content).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's contents, 64 hex digits.

    Raises:
        OSError: If the file can't be read.
    """
    return file_hashes([path])[path]


def file_hashes(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the SHA-256 of each file's contents, 64 hex digits, in the order of the paths.

    Raises:
        OSError: If a file can't be read.
    """
    files = {path: path.resolve() for path in paths}
    states = {file: file.stat() for file in files.values()}
    hashes = _look_up({file: _version(state) for file, state in states.items()})
    unknown = {file: state.st_size for file, state in states.items() if file not in hashes}
    if unknown:
        hashes |= _hash_and_store(unknown)
    return {path: hashes[file] for path, file in files.items()}


def cache_file() -> Path:
    """Return where hashes are kept; errors as in `cache_folder`."""
    return cache_folder() / CACHE_FILE


def cache_folder() -> Path:
    """Return the folder of what can be made again: hashes of files, and converted checkpoints.

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
    """Return what differs after any change: even one whose author sets the old mtime again.

    Only the kernel sets ctime. The inode differs where a file was renamed to this name.
    """
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"


def _hash_and_store(sizes: Mapping[Path, int]) -> dict[Path, str]:
    """Read files in several threads, keep the hashes of those that are old enough, return all."""
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
            stop.set()  # after Ctrl-C or an error the other threads would read on for minutes
    _store([entry for entry, is_settled in read if is_settled])
    return {entry.path: entry.hash for entry, _ in read}


def _read(path: Path, advance: Callable[[int], object], stop: Event) -> tuple[_Entry, bool]:
    """Hash a file; the second result says whether any later change will change its version."""
    digest = hashlib.sha256()
    start = time.time_ns()
    with path.open("rb", buffering=0) as file:
        # The version before reading: a file that changes meanwhile never has this one again.
        state = os.fstat(file.fileno())
        while not stop.is_set() and (block := file.read(BLOCK_BYTES)):
            digest.update(block)
            advance(len(block))
    is_settled = max(state.st_mtime_ns, state.st_ctime_ns) + ROUNDING_NS < start
    return _Entry(path, _version(state), digest.hexdigest()), is_settled


def _look_up(versions: Mapping[Path, str]) -> dict[Path, str]:
    """Return the hashes that the cache has of these versions of files."""
    found: dict[Path, str] = {}
    query = "SELECT hash, seal FROM files WHERE path = ?"
    try:
        with closing(_connect()) as database:
            for path, version in versions.items():
                row = database.execute(query, (os.fsencode(path),)).fetchone()
                if row is not None:
                    entry = _Entry(path, version, str(row[0]))
                    if entry.seal == row[1]:  # it covers path and version
                        found[path] = entry.hash
    except Exception as error:  # whatever is wrong with the cache, the run can do without
        _warn(repr(error))
    return found


def _store(entries: Collection[_Entry]) -> None:
    """Keep hashes in the cache."""
    rows = [(os.fsencode(one.path), one.version, one.hash, one.seal) for one in entries]
    if not rows:
        return
    try:
        with closing(_connect()) as database, database:
            database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)
    except Exception as error:  # as above
        _warn(repr(error))


def _connect() -> sqlite3.Connection:
    import sqlite3  # not every Python was built with it

    file = cache_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    # IMMEDIATE: a transaction that reads first and writes later could fail without waiting.
    database = sqlite3.connect(file, timeout=LOCK_TIMEOUT_S, isolation_level="IMMEDIATE")
    try:
        database.execute(TABLE)
    except sqlite3.Error:
        database.close()
        raise
    return database


@cache  # once per process and reason
def _warn(reason: str) -> None:
    logger.warning(
        "the cache of file hashes can't be used (%s), so files are read again; delete the damaged "
        "file or set %s to a folder that can be written (default: ~/.cache/eah)",
        reason,
        CACHE_VARIABLE,
    )
