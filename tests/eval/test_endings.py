"""How commands end: by signals, and by faults of ours; streams are in run/test_streams.py."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from eah import exit_status


def finish(run: object) -> int:
    return exit_status.finish(
        "tried",
        run,
        sentence_of=lambda error: None,
        interrupted="all is kept",  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "terminated"),
        (signal.SIGHUP, "ended, as its terminal was closed"),
    ],
)
def test_signals_end_with_a_sentence_once_everything_is_tidied_up(
    number: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tidied = []

    def run() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), number)  # once more, as an impatient person does
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            tidied.append(True)

    before = [signal.getsignal(one) for one in exit_status.SIGNALS]
    assert finish(run) == 128 + number

    assert capfd.readouterr().err == f"tried: {said}; all is kept\n"
    assert tidied == [True]
    assert [signal.getsignal(one) for one in exit_status.SIGNALS] == before


def test_a_signal_while_an_object_is_deleted_is_not_dropped() -> None:
    class Slow:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    def run() -> None:
        Slow()
        time.sleep(10)

    assert finish(run) == 143


def test_a_signal_that_comes_while_the_last_one_is_sent_again_is_not_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def start_slowly(thread: threading.Thread) -> None:
        start(thread)
        time.sleep(0.1)  # a busy machine: the signal arrives before the hook has returned

    class Deleted:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    def run() -> None:
        Deleted()
        time.sleep(2)

    monkeypatch.setattr(threading.Thread, "start", start_slowly)

    assert finish(run) == 143


def test_what_a_worker_makes_of_the_signal_is_no_fault_of_ours(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def run() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            raise RuntimeError("DataLoader worker (pid 7) was killed by signal: Terminated.")

    assert finish(run) == 143
    assert capfd.readouterr().err == "tried: terminated; all is kept\n"


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert finish(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_process_ends_by_the_signal_itself() -> None:
    statuses = []

    def run() -> None:
        ready, told = os.pipe()
        child = os.fork()
        if not child:
            os.write(told, b"!")  # Python forgets signals that come while it forks
            time.sleep(10)
            os._exit(0)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    assert finish(run) == 0
    assert statuses == [-signal.SIGTERM]
