"""Processes that read captions end with the one that started them."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor

from eval.tasks.chair import truth
from eval.tasks.chair.analyzers import LexiconAnalyzer
from eval.tasks.chair.vocabulary import load_vocabulary


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended, but that nobody waited for, does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_of_a_killed_process_end() -> None:
    ready, told = os.pipe()
    main = os.fork()
    if not main:
        try:
            analyzer = LexiconAnalyzer(load_vocabulary())
            pool = ProcessPoolExecutor(
                1, initializer=truth._start, initargs=(analyzer, os.getpid())
            )
            os.write(told, str(pool.submit(os.getpid).result()).encode())
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(told)
    worker = int(os.read(ready, 20))
    assert is_alive(worker)
    os.kill(main, signal.SIGKILL)
    os.waitpid(main, 0)

    end = time.monotonic() + 10 * truth.PARENT_S
    while is_alive(worker) and time.monotonic() < end:
        time.sleep(0.05)
    alive = is_alive(worker)
    if alive:
        os.kill(worker, signal.SIGKILL)
    assert not alive
