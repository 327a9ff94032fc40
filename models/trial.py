"""Try out a checkpoint's prompt preparation in a child process that can be killed.

A chat template is a program and may never end. An image processor may take all memory, since its
config sets the size of pictures. Python can't stop either of them within the process.
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

# A prompt normally takes milliseconds and megabytes.
CPU_SECONDS: Final = 10
MORE_BYTES: Final = 4 << 30
# Longest wait, for instance for a slow disk; then the trial is given up and the run continues.
WALL_SECONDS: Final = 60
POLL_S: Final = 0.002
NO_MEMORY: Final = 3  # exit status


def try_out(what: str, make: Callable[[], object]) -> None:
    """Check that a call ends in time and takes bounded memory; do nothing without `fork`.

    Errors that the call raises are ignored here; the real call raises them again.

    Args:
        what: Description of the call, for the message.
        make: The call, on the CPU.
    Raises:
        ModelError: If it takes too much time or memory.
    """
    if not hasattr(os, "fork"):
        return
    with warnings.catch_warnings():
        # Python warns that the child may wait for locks of other threads; it is killed then.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            child = os.fork()
        except OSError:  # no more processes or memory
            return
    if child == 0:
        _run_child(make)
    ended = _wait(child)
    if ended is None or ended == 0:
        return
    if ended == -signal.SIGXCPU:
        reason = f"does not end within {CPU_SECONDS} seconds of processor time"
    else:  # NO_MEMORY, or a library that aborted without memory
        reason = f"takes more than {MORE_BYTES >> 30} GiB of memory, or crashes"
    raise ModelError(f"{what} {reason}; it is damaged or hostile: use another checkpoint")


def _run_child(make: Callable[[], object]) -> None:
    """Run the call under limits and end the process, without Python's exit handlers."""
    import resource  # imported late: exists only where fork does

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
    """Return whether an error or its cause is a lack of memory; torch's errors by their text."""
    return error is not None and (
        isinstance(error, MemoryError)
        or "can't allocate memory" in str(error)
        or _lacks_memory(error.__cause__)
    )


def _wait(child: int) -> int | None:
    """Return a child's exit code; None if it was killed after waiting too long.

    Also None if other code in this process collects its children, or it ignores SIGCHLD: then the
    id of an ended child may belong to another process, which must not be killed.
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
    """Kill a child unless it was already collected."""
    with suppress(ChildProcessError):
        if os.waitpid(child, os.WNOHANG) == (0, 0):  # its id is still valid
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
