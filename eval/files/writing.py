"""Atomic writing of files; a replaced file keeps its type, mode and owner."""

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

SHOWN_NAME: Final = 40  # characters of a file's name that its temporary file's name starts with
READER_S: Final = 10.0  # longest wait for a pipe's reader
PAUSE_S: Final = 0.01
REFUSED: Final = {
    stat.S_IFDIR: (errno.EISDIR, "Is a directory"),
    stat.S_IFBLK: (errno.EINVAL, "it is a disk, not a file"),
    stat.S_IFSOCK: (errno.EINVAL, "it is a socket, not a file"),
}


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file atomically, so that neither a reader nor a crash sees half of it.

    A symlink is kept and its target is replaced. Pipes and devices, such as /dev/stdout, are
    written to directly.

    Raises:
        EvaluationError: If it can't be written, or is write-protected, a folder, disk or socket.
    """
    # A lone surrogate, which JSON may contain, is written as an escape.
    encoded = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with write_errors(path):
        state = check_target(path)
        if state is not None and not stat.S_ISREG(state.st_mode):
            with _open_special(path, state) as special:
                special.write(encoded)
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, encoded, state)


def check_target(path: Path) -> os.stat_result | None:
    """Return the state of the file to replace, following symlinks; None if there is none.

    Raises:
        OSError: If it can't be read or written, such as a folder or a write-protected file.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    if refusal := REFUSED.get(stat.S_IFMT(state.st_mode)):
        raise OSError(*refusal)
    # The superuser may write to any file, but a protected file must not be lost.
    if not (state.st_mode & 0o222 and os.access(path, os.W_OK)):
        raise PermissionError(errno.EACCES, "it is write-protected")
    return state


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn errors of the operating system while writing into one sentence."""
    try:
        yield
    except (OSError, ValueError) as error:  # a ValueError: not a valid file name
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise EvaluationError(
            f"{path} can't be written: {reason}; what was written before is kept: "
            "free space or choose another path, and run the same command again"
        ) from error


def _open_special(path: Path, state: os.stat_result) -> BinaryIO:
    """Open a pipe or device for writing; raise an error if a pipe gets no reader in time."""
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
                raise OSError(errno.ENXIO, "it is a pipe without a reader") from error
            time.sleep(PAUSE_S)
        else:
            os.set_blocking(descriptor, True)
            return os.fdopen(descriptor, "wb")


def _replace(path: Path, content: bytes, state: os.stat_result | None) -> None:
    """Replace a file by a new one with the same mode and owner."""
    # A random name, so that no other process on any machine uses it.
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
