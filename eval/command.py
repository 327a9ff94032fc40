"""How every command ends.

0    all is done
1    a fault of ours; the sentence names a file with the details
2    one sentence about bad input, or about a file or stream that can't be read or written
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
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from eah.errors import EAHError
from eval.errors import EvaluationError, shown
from models.errors import ModelError

OK, BUG, BAD_INPUT, INTERRUPTED, BROKEN_PIPE, TERMINATED = 0, 1, 2, 130, 141, 143
# What bad input to the method or to a model raises, besides the benchmark's own errors.
RUN_ERRORS: Final = (EAHError, ModelError)
KEPT: Final = "what was answered is kept, the same command goes on from there"
SECRET_VARIABLES: Final = ("OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SHORTEST_SECRET: Final = 8
LONGEST: Final = 200  # characters of an error that are shown


class Terminated(KeyboardInterrupt):
    """The system asked the process to end; whatever takes care of Ctrl-C takes care of it, too."""


def finish(
    name: str, run: Callable[[], None], *errors: type[Exception], interrupted: str = KEPT
) -> int:
    """Run a command's work and return its exit status.

    Args:
        name: The command.
        run: Its work, from the reading of its flags on.
        errors: What bad input raises, besides EvaluationError.
        interrupted: What Ctrl-C leaves behind, for the person who pressed it.
    """
    expected: tuple[type[Exception], ...] = (EvaluationError, *errors)
    _open_streams()
    try:
        with _terminable():
            run()
            sys.stdout.flush()  # here, where a closed pipe is expected, and not at Python's exit
    except expected as error:
        return _say(f"{name}: error: {error}", BAD_INPUT)
    except BrokenPipeError:
        return _silenced(BROKEN_PIPE)  # whoever reads the output has seen enough, as head does
    except Terminated:
        return _say(f"{name}: terminated; {interrupted}", TERMINATED)
    except KeyboardInterrupt:
        return _say(f"{name}: interrupted; {interrupted}", INTERRUPTED)
    except MemoryError:
        return _say(f"{name}: error: out of memory; {interrupted}", BAD_INPUT)
    except OSError as error:
        return _say(f"{name}: error: {_in_words(error)}", BAD_INPUT)
    except Exception as error:
        if _is_out_of_memory(error):
            advice = "pass a smaller --batch-size, or --quantization"
            return _say(f"{name}: error: out of memory: {advice}; {interrupted}", BAD_INPUT)
        return _say(f"{name}: {_bug(error)}", BUG)
    return OK


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
def _terminable() -> Iterator[None]:
    """Let SIGTERM raise Terminated in this process; those that it starts end as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() != own:  # a forked worker, which has nothing to tidy up
            os.kill(os.getpid(), signal.SIGTERM)
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(sentence: str, status: int) -> int:
    """Print a sentence and return an exit status; if nobody can be told, the status has to do."""
    with suppress(OSError, ValueError):
        print(shown(sentence), file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return _silenced(status)
    return status


def _silenced(status: int) -> int:
    """Give up standard output, at which Python would complain when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _in_words(error: OSError) -> str:
    """Return what the system refused, in one line."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    if isinstance(error.filename, (str, bytes, os.PathLike)):
        return f"{os.fsdecode(error.filename)}: {reason}; check the path, its rights and the room"
    if error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT, errno.EBADF):
        return f"output can't be written: {reason}; what was written to files before is kept"
    return f"{reason}; check the network, the disk and their rights, and run the command again"


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether a device, or torch's allocator, had no room; torch may not be loaded."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _bug(error: Exception) -> str:
    """Write the details of a fault of ours to a file, and return the sentence that names it."""
    # Secrets are left out before anything is cut: half a key would not be found.
    said = _without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))[:LONGEST]
    details = _without_secrets("".join(traceback.format_exception(error)))
    try:
        # Only its owner can read it.
        number, path = tempfile.mkstemp(prefix="eah-bug-", suffix=".txt", text=True)
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{_without_secrets(repr(sys.argv))}\n{sys.version}\n\n{details}")
    except OSError:
        path = "nowhere, no file could be written"
    return f"this is a bug in EAH, please report it ({said}); details: {path}"


def _without_secrets(text: str) -> str:
    for name in SECRET_VARIABLES:
        secret = os.environ.get(name, "")
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "[key]")
    return text
