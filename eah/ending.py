"""How every command ends.

0    all is done
1    a fault of ours; the sentence names a file with the details (or a check that failed)
2    one sentence about bad input, or about a file or stream that can't be read or written
129  the terminal was closed (SIGHUP)
130  Ctrl-C
141  whoever read the output closed it
143  the system asked it to end (SIGTERM)
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
GRACE_S: Final = 5.0  # so long a second signal can't break off the tidying up after the first
AGAIN_S: Final = 0.01
SECRET_VARIABLES: Final = ("OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SHORTEST_SECRET: Final = 8
LONGEST: Final = 200  # characters of an error that are shown


class Terminated(KeyboardInterrupt):
    """The system asked the process to end; whatever takes care of Ctrl-C takes care of it, too."""

    number: int = signal.SIGTERM


@dataclass(slots=True)
class _Asked:
    """The last signal that was taken for a wish that the process ends; None before."""

    number: int | None = None
    at: float = 0.0


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
        run: Its work, from the reading of its flags on; returns its status if it can be another
            than 0.
        sentence_of: Returns what an error says if bad input raises it, else None.
        interrupted: What Ctrl-C leaves behind, for the person who pressed it.
    """
    _open_streams()
    _hiding.clear()
    with _asked_to_end() as asked:
        try:
            status = run() or OK
            sys.stdout.flush()  # here, where a closed pipe is expected, and not at Python's exit
            return status
        except SystemExit as ended:  # of the reading of flags, which has said why
            if not _is_flushed():
                return int(ended.code or BAD_INPUT)
            raise
        except (KeyboardInterrupt, Exception) as error:
            if asked.number is not None or isinstance(error, KeyboardInterrupt):
                # Also where a worker, which had the signal as well, made another error of it.
                number = asked.number or int(getattr(error, "number", signal.SIGINT))
                return _say(f"{name}: {SIGNALS[number]}; {interrupted}", BY_SIGNAL + number)
            if isinstance(error, BrokenPipeError):
                _is_flushed()
                return BROKEN_PIPE  # whoever reads the output has seen enough, as head does
            if (sentence := sentence_of(error)) is not None:
                return _say(f"{name}: error: {sentence}", BAD_INPUT)
            if (sentence := _out_of_room(error)) is not None:
                return _say(f"{name}: error: {sentence}; {interrupted}", BAD_INPUT)
            return _say(f"{name}: {_bug(error)}", BUG)


def _open_streams() -> None:
    """Make sure that there are streams, which print whatever a caption may hold."""
    for stream_name in ("stdout", "stderr"):
        stream = getattr(sys, stream_name)
        if stream is None:  # closed by whoever started the command
            setattr(sys, stream_name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            # What a terminal can't show, as half of a surrogate pair, is printed escaped.
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _asked_to_end() -> Iterator[_Asked]:
    """Let signals raise Terminated, or KeyboardInterrupt; what is ignored, as by nohup, stays so.

    They do so in this process; those that it starts end as ever.
    """
    asked, own = _Asked(), os.getpid()

    def ask(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:
            again, now = asked.number is not None, time.monotonic()
            if again and now - asked.at < GRACE_S:
                return
            asked.number, asked.at = number, now
            if number != signal.SIGINT and not again:
                raise _terminated(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        # A forked worker, which has nothing to tidy up, or somebody who has waited long enough.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def unraisable(what: Any) -> None:
        # Python drops what is raised while an object is deleted: asked once more, a moment later.
        number = asked.number
        if number is None or not issubclass(what.exc_type, KeyboardInterrupt):
            hook(what)
            return
        asked.number = None
        later = threading.Timer(AGAIN_S, os.kill, (own, number))
        later.daemon = True
        later.start()

    hook, before = sys.unraisablehook, dict[int, Any]()
    sys.unraisablehook = unraisable
    if threading.current_thread() is threading.main_thread():
        usual = (signal.SIG_DFL, signal.default_int_handler)
        before = {n: signal.signal(n, ask) for n in SIGNALS if signal.getsignal(n) in usual}
    try:
        yield asked
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminated(number: int) -> Terminated:
    error = Terminated()
    error.number = number
    return error


def _say(sentence: str, status: int) -> int:
    """Print a sentence and return an exit status; if nobody can be told, the status has to do."""
    with suppress(OSError, ValueError):
        print(sentence, file=sys.stderr)
    _is_flushed()
    return status


def _is_flushed() -> bool:
    """Print what waits in the streams; a stream that takes no more is given up.

    Python would complain of it when it ends.
    """
    taken = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            taken = False
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
    return taken


def _out_of_room(error: Exception) -> str | None:
    """Return what the system refused, in one line; None if it refused nothing."""
    if isinstance(error, MemoryError):
        return "out of memory"
    # Of a device, or of torch's allocator; torch may not be loaded.
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


def _bug(error: Exception) -> str:
    """Write the details of a fault of ours to a file, and return the sentence that names it."""
    # Secrets are left out before anything is cut: half a key would not be found.
    said = _without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))[:LONGEST]
    details = _without_secrets(
        "".join(traceback.format_exception(type(error), error, error.__traceback__))
    )
    try:
        # Only its owner can read it.
        number, path = tempfile.mkstemp(prefix="eah-bug-", suffix=".txt", text=True)
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{_without_secrets(repr(sys.argv))}\n{sys.version}\n\n{details}")
    except OSError:
        path = "nowhere, no file could be written"
    return f"this is a bug in EAH, please report it ({said}); details: {path}"


def hide_with(hide: Callable[[str], str]) -> None:
    """Hide a secret that this command has read in the details of faults.

    Args:
        hide: Returns a text without it.
    """
    _hiding.append(hide)


# Of the command that runs now.
_hiding: Final[list[Callable[[str], str]]] = []


def _without_secrets(text: str) -> str:
    for hide in _hiding:
        text = hide(text)
    for name in SECRET_VARIABLES:
        secret = os.environ.get(name, "")
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "[key]")
    return text
