"""Files whole or not at all; what stands at a path keeps its kind, its mode and its owner."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from eval.errors import EvaluationError

SHOWN_NAME: Final = 40  # characters of a file's name in that of the temporary file beside it
READER_S: Final = 10.0  # so long a pipe's reader may take to start
PAUSE_S: Final = 0.01
REFUSED: Final = {
    stat.S_IFDIR: (errno.EISDIR, "Is a directory"),
    stat.S_IFBLK: (errno.EINVAL, "it is a disk, not a file"),
    stat.S_IFSOCK: (errno.EINVAL, "it is a socket, not a file"),
}


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole, so that a reader or a crash never meets half of it.

    A symlink stays, and the file that it leads to is replaced. Pipes and devices, as /dev/stdout,
    are written into.

    Raises:
        EvaluationError: If it can't be written, or is write-protected, a folder, disk or socket.
    """
    # Half of a surrogate pair, which JSON from elsewhere may hold, is written as JSON escapes it.
    encoded = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with writing(path):
        state = what_stands_at(path)
        if state is not None and not stat.S_ISREG(state.st_mode):
            with _opened_special(path, state) as special:
                special.write(encoded)
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, encoded, state)


def what_stands_at(path: Path) -> os.stat_result | None:
    """Return the state of what is to be replaced, behind symlinks; None if nothing is there.

    Raises:
        OSError: If it can't be looked up or written, as a folder or a write-protected file.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    if refusal := REFUSED.get(stat.S_IFMT(state.st_mode)):
        raise OSError(*refusal)
    # The superuser may write to any file; what somebody protected is not to be lost even so.
    if not (state.st_mode & 0o222 and os.access(path, os.W_OK)):
        raise PermissionError(errno.EACCES, "it is write-protected")
    return state


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into one sentence."""
    try:
        yield
    except (OSError, ValueError) as error:  # a ValueError: no system takes such a name
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise EvaluationError(
            f"{path} can't be written: {reason}; what was written before is kept: "
            "make room or choose another place, and run the same command again"
        ) from error


def _opened_special(path: Path, state: os.stat_result) -> BinaryIO:
    """Open a pipe or device for writing; a pipe that nobody reads is refused after a while."""
    if not stat.S_ISFIFO(state.st_mode):
        return path.open("ab")
    end = time.monotonic() + READER_S
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > end:
                raise OSError(errno.ENXIO, "it is a pipe that nobody reads") from error
            time.sleep(PAUSE_S)
        else:
            os.set_blocking(descriptor, True)
            return os.fdopen(descriptor, "wb")


def _replace(path: Path, content: bytes, state: os.stat_result | None) -> None:
    """Put a new file in the place of another, with its mode and owner."""
    # No process of any machine has another file of this name.
    temporary = path.with_name(f".{path.name[:SHOWN_NAME]}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            if state is not None:
                if state.st_uid != os.geteuid() or state.st_gid != os.getegid():
                    with suppress(PermissionError):
                        os.fchown(file.fileno(), state.st_uid, state.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(state.st_mode))  # last: chown clears bits
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
