"""Lock a place, so that only one install or restore runs there at a time.

The operating system releases the lock of a process however it ends, so a lock file that a crash
leaves behind blocks no one.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from eah.swap.place import Place, SwapError

WAIT_S: Final = 600.0
PAUSE_S: Final = 0.01
# Some network file systems have no locks; there, concurrent commands are at the user's risk.
WITHOUT_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
BUSY: Final = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_file(place: Place) -> Path:
    """Return the file whose lock a process holds while it changes a place."""
    return place.file.with_name(f".eah-{place.file.stem}.lock")


@contextmanager
def hold_lock(place: Place) -> Iterator[None]:
    """Hold the lock of a place.

    Raises:
        SwapError: If another process holds it for too long.
        OSError: If the folder can't be written.
    """
    path, end = lock_file(place), time.monotonic() + WAIT_S
    while (descriptor := acquire(path)) is None:
        if time.monotonic() > end:
            raise SwapError(
                f"another process has been changing {place.file} for {WAIT_S:.0f} seconds; wait "
                "for it to end, or end it, and run this again"
            )
        time.sleep(PAUSE_S)
    try:
        yield
    finally:
        release(descriptor, path)


def acquire(path: Path) -> int | None:
    """Return a descriptor that holds the lock; None if another process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(descriptor)
        # The last holder may have removed the file between our two calls; then our lock is useless.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
    except OSError as error:
        if error.errno in WITHOUT_LOCKS:
            return descriptor
        if error.errno not in BUSY:
            os.close(descriptor)
            raise
    os.close(descriptor)
    return None


def release(descriptor: int, path: Path) -> None:
    """Remove the file, then release the lock; on Windows in the other order."""
    with suppress(OSError):
        os.unlink(path)
    os.close(descriptor)
    if sys.platform == "win32":  # pragma: no cover
        with suppress(OSError):  # another process has it open
            os.unlink(path)
