"""Run a command, turn its errors into one sentence, and return its exit status.

0    success
1    a bug in EAH (the message names a file with the details), or a check that failed
2    bad input, or a file or stream that can't be read or written
129  the terminal was closed (SIGHUP)
130  Ctrl-C (SIGINT)
141  the reader of the output closed it
143  the process was terminated (SIGTERM)
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from eah.redact import hide_secrets

OK, BUG, BAD_INPUT, BROKEN_PIPE = 0, 1, 2, 141
BY_SIGNAL: Final = 128  # plus the signal's number, as a shell reports it
# What each signal means; Windows has no SIGHUP.
SIGNALS: Final = {
    getattr(signal, name): meaning
    for name, meaning in (
        ("SIGINT", "interrupted"),
        ("SIGTERM", "terminated"),
        ("SIGHUP", "ended, as its terminal was closed"),
    )
    if hasattr(signal, name)
}
GRACE_S: Final = 5.0  # a second signal within this time does not interrupt the cleanup
RETRY_S: Final = 0.01
LONGEST: Final = 200  # characters of an error that are shown


class Terminated(KeyboardInterrupt):
    """Raised by SIGTERM and SIGHUP; code that handles Ctrl-C handles it as well."""

    number: int = signal.SIGTERM


@dataclass(slots=True)
class _LastSignal:
    """The last signal that ends the process, and when it came; None before the first."""

    number: int | None = None
    at: float = 0.0
    is_resent_soon: bool = False  # in the hook for dropped exceptions, which would drop another
    is_over: bool = False


def finish(
    name: str,
    run: Callable[[], int | None],
    *,
    sentence_of: Callable[[Exception], str | None],
    interrupted: str,
) -> int:
    """Run a command's work and return its exit status.

    Args:
        name: The command.
        run: Parses the flags and does the work; returns the exit status, or None for 0.
        sentence_of: Returns the message of an error that bad input raises; None for other errors.
        interrupted: Printed after a signal: what has been kept, or was not changed.
    """
    _open_streams()
    _redactors.clear()
    with _raise_on_signals() as received:
        try:
            status = run() or OK
            sys.stdout.flush()  # raises BrokenPipeError here instead of at Python's exit
            return status
        except SystemExit as ended:  # from argparse, which has printed the reason
            if not _flush_streams():
                return int(ended.code or BAD_INPUT)
            raise
        except (KeyboardInterrupt, Exception) as error:
            if received.number is not None or isinstance(error, KeyboardInterrupt):
                # Also if a worker received the signal too and raised another error because of it.
                number = received.number or int(getattr(error, "number", signal.SIGINT))
                return _print_error(f"{name}: {SIGNALS[number]}; {interrupted}", BY_SIGNAL + number)
            if isinstance(error, BrokenPipeError):
                _flush_streams()
                return BROKEN_PIPE  # the reader has stopped reading, as `head` does
            if (sentence := sentence_of(error)) is not None:
                return _print_error(f"{name}: error: {sentence}", BAD_INPUT)
            if (sentence := _describe_system_error(error)) is not None:
                return _print_error(f"{name}: error: {sentence}; {interrupted}", BAD_INPUT)
            return _print_error(f"{name}: {_report_bug(error)}", BUG)


def _open_streams() -> None:
    """Ensure that stdout and stderr exist and can print any text."""
    for stream_name in ("stdout", "stderr"):
        stream = getattr(sys, stream_name)
        if stream is None:  # closed by the parent process
            setattr(sys, stream_name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            # Characters that a terminal can't show, such as lone surrogates, are escaped.
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _raise_on_signals() -> Iterator[_LastSignal]:
    """Let signals raise Terminated or KeyboardInterrupt in this process.

    Signals that are ignored, as under nohup, stay ignored. Child processes are not affected.
    """
    received, own = _LastSignal(), os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:
            if received.is_resent_soon:
                return
            again, now = received.number is not None, time.monotonic()
            if again and now - received.at < GRACE_S:
                return
            received.number, received.at = number, now
            if number != signal.SIGINT and not again:
                raise _terminated(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        # A forked worker, which has nothing to clean up, or a repeated signal after GRACE_S.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def unraisable(what: Any) -> None:
        # Python drops exceptions that are raised in __del__, so the signal is sent again.
        number = received.number
        if number is None or not issubclass(what.exc_type, KeyboardInterrupt):
            hook(what)
            return
        received.number, received.is_resent_soon = None, True
        try:
            threading.Thread(target=resend, args=(number,), daemon=True).start()
        finally:
            received.is_resent_soon = False

    def resend(number: int) -> None:
        time.sleep(RETRY_S)
        while received.number is None and not received.is_over:
            os.kill(own, number)
            time.sleep(RETRY_S)

    hook, before = sys.unraisablehook, dict[int, Any]()
    sys.unraisablehook = unraisable
    if threading.current_thread() is threading.main_thread():
        usual = (signal.SIG_DFL, signal.default_int_handler)
        before = {n: signal.signal(n, handle) for n in SIGNALS if signal.getsignal(n) in usual}
    try:
        yield received
    finally:
        received.is_over = True
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminated(number: int) -> Terminated:
    error = Terminated()
    error.number = number
    return error


def _print_error(sentence: str, status: int) -> int:
    """Print a message to stderr, if it can be printed, and return the exit status."""
    with suppress(OSError, ValueError):
        print(sentence, file=sys.stderr)
    _flush_streams()
    return status


def _flush_streams() -> bool:
    """Flush stdout and stderr; return whether both could be flushed.

    A stream that can't be flushed is redirected to the null device: otherwise Python would print
    an error about it at exit.
    """
    flushed = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            flushed = False
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
    return flushed


def _describe_system_error(error: Exception) -> str | None:
    """Return one line about an error of the system (memory, files, network); None for others."""
    if isinstance(error, MemoryError):
        return "out of memory"
    # Compared by name, because torch may not be loaded.
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
        return "out of memory: free some, take a smaller batch, or a smaller or quantized model"
    if not isinstance(error, OSError):
        return None
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    if isinstance(error.filename, (str, bytes, os.PathLike)):
        return f"{os.fsdecode(error.filename)}: {reason}; check the path, its rights and the room"
    if error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT, errno.EBADF):
        return f"output can't be written: {reason}"
    return f"{reason}; check the network, the disk and their rights, and run the command again"


def _report_bug(error: Exception) -> str:
    """Write the details of an unexpected error to a file, and return a sentence that names it."""
    # Secrets are removed before the text is cut: half a key would not be recognized.
    summary = _redact(" ".join(f"{type(error).__name__}: {error}".split()))[:LONGEST]
    details = _redact("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    try:
        # Readable by its owner only.
        number, path = tempfile.mkstemp(prefix="eah-bug-", suffix=".txt", text=True)
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{_redact(repr(sys.argv))}\n{sys.version}\n\n{details}")
    except OSError:
        path = "nowhere, no file could be written"
    return f"this is a bug in EAH, please report it ({summary}); details: {path}"


def redact_with(redact: Callable[[str], str]) -> None:
    """Register a function that removes a secret from this command's error details.

    Args:
        redact: Returns a text without the secret.
    """
    _redactors.append(redact)


# Of the current command.
_redactors: Final[list[Callable[[str], str]]] = []


def _redact(text: str) -> str:
    for redact in _redactors:
        text = redact(text)
    return hide_secrets(text)
