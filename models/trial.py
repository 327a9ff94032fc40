"""Try out what a checkpoint's files make of a prompt, in a process that can be ended.

A chat template is a program, and an image processor makes pictures as large as its config says: one
may never end, the other may take all memory. In Python nothing can stop either in time.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import psutil
import torch

from models.errors import ModelError

# A prompt takes milliseconds, and megabytes.
CPU_SECONDS: Final = 10
MORE_BYTES: Final = 4 << 30
# Of waiting, for instance for a slow disk; then nothing is known, and the run continues.
WALL_SECONDS: Final = 60
POLL_S: Final = 0.002
NO_MEMORY: Final = 3  # exit status


def try_out(what: str, make: Callable[[], object]) -> None:
    """Check that something ends in time and takes bounded memory; do nothing without `fork`.

    What it raises is left to who calls it in earnest.

    Args:
        what: What is tried, for the message.
        make: Does it once, on the CPU.
    Raises:
        ModelError: If it takes too long or too much.
    """
    if not hasattr(os, "fork"):
        return
    with warnings.catch_warnings():
        # Python warns of threads, whose locks the child could wait for: it is given up then.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            child = os.fork()
        except OSError:  # no process or memory is left for it
            return
    if child == 0:
        _run_child(make)
    ended = _wait(child)
    if ended is None or ended == 0:
        return
    if ended == -signal.SIGXCPU:
        reason = f"does not end within {CPU_SECONDS} seconds of processor time"
    else:  # NO_MEMORY, or a library's abort where it gets none
        reason = f"takes more than {MORE_BYTES >> 30} GiB of memory, or crashes"
    raise ModelError(f"{what} {reason}; it is damaged or hostile: use another checkpoint")


def _run_child(make: Callable[[], object]) -> None:
    """Do it under limits and end the process, without anything that is done at Python's exit."""
    import resource  # where there is fork

    status = 0
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        torch.set_num_threads(1)  # OpenMP's other threads were not copied
        bound = psutil.Process().memory_info().vms + MORE_BYTES
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        make()
    except BaseException as error:
        status = NO_MEMORY if _lacks_memory(error) else 0
    finally:
        os._exit(status)


def _lacks_memory(error: BaseException | None) -> bool:
    """Tell whether an error, or what it came of, is a lack of memory; torch says so in words."""
    return error is not None and (
        isinstance(error, MemoryError)
        or "can't allocate memory" in str(error)
        or _lacks_memory(error.__cause__)
    )


def _wait(child: int) -> int | None:
    """Return how a process ended; None if it had to be ended for waiting too long.

    None, too, where others in this process wait for its children, or it ignores SIGCHLD: then the
    number of one that has ended may be another process's, which must not be killed.
    """
    end, is_gone = time.monotonic() + WALL_SECONDS, False
    try:
        while time.monotonic() < end:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                is_gone = True
                return os.waitstatus_to_exitcode(status)
            time.sleep(POLL_S)
    except ChildProcessError:
        is_gone = True
    finally:
        if not is_gone:
            _end(child)
    return None


def _end(child: int) -> None:
    """End a process unless others have waited for it."""
    with suppress(ChildProcessError):
        if os.waitpid(child, os.WNOHANG) == (0, 0):  # its number is still its own
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
