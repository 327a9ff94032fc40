"""Commands at the same time: one waits for the other, and nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from eah import swap
from eah.swap import exchange, lock, states
from tests.eah.swap.installs import error_of, ours, run, tree

PAIRS = 200
fork = multiprocessing.get_context("fork")


def change(
    action: Callable[[swap.Place], str], place: swap.Place, start: Barrier, turns: int
) -> None:
    """Install or restore again and again, each time at once with the other process."""
    for _ in range(turns):
        start.wait(60)
        action(place)
        start.wait(60)


def test_installs_and_restores_at_the_same_time_lose_nothing(site: Path, place: swap.Place) -> None:
    before, original = tree(site), place.file.read_bytes()
    start = fork.Barrier(3)
    processes = [
        fork.Process(target=change, args=(action, place, start, PAIRS), daemon=True)
        for action in (swap.install, swap.restore)
    ]
    for process in processes:
        process.start()
    outcomes = set()

    for turn in range(PAIRS):
        start.wait(60)  # both go
        assert swap.describe(place)
        start.wait(60)  # both are done
        found = swap.status(place)
        outcomes.add(found.kind)
        if found.kind == "ours":
            assert found.current
            assert place.original.read_bytes() == original, turn
        else:
            assert tree(site) == before, turn
        assert not lock.lock_file(place).exists()
        if turn % 2:
            swap.restore(place)
        else:
            swap.install(place)

    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert outcomes == {"ours", "original"}
    swap.restore(place)
    assert tree(site) == before


def test_commands_at_the_same_time_lose_nothing(site: Path, place: swap.Place) -> None:
    """The same with whole processes, each started for one action, all at once."""
    before = tree(site)
    actions = [swap.install, swap.restore] * 10
    processes = [fork.Process(target=action, args=(place,)) for action in actions]

    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0] * len(processes)
    swap.restore(place)
    assert tree(site) == before


def hold(place: swap.Place, held: Any) -> None:
    with lock.hold_lock(place):
        held.set()
        time.sleep(600)


@pytest.fixture
def holder(place: swap.Place) -> Any:
    """Return a process that holds the lock, and is killed in the end."""
    held = fork.Event()
    process = fork.Process(target=hold, args=(place, held), daemon=True)
    process.start()
    assert held.wait(60)
    yield process
    process.kill()
    process.join()


def test_a_command_waits_and_then_gives_up_with_one_sentence(
    site: Path, place: swap.Place, holder: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = tree(site)
    monkeypatch.setattr(lock, "WAIT_S", 0.2)
    start = time.monotonic()

    assert run(site, "install") == 2

    assert time.monotonic() - start >= 0.2
    assert f"another process has been changing {place.file}" in error_of(capsys)
    assert tree(site) == before
    assert run(site, "status") == 0


def test_the_lock_file_of_a_killed_process_locks_nobody_out(
    site: Path, place: swap.Place, holder: Any
) -> None:
    before = tree(site)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert lock.lock_file(place).exists()

    swap.install(place)

    assert place.file.read_bytes() == ours()
    swap.restore(place)
    assert not lock.lock_file(place).exists()
    assert set(tree(site)) == set(before) - {str(lock.lock_file(place).relative_to(site))}


def test_a_lock_on_a_file_that_was_removed_is_none(
    place: swap.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removes its lock file after we open it, and before we lock it."""
    take, path = lock._lock, lock.lock_file(place)

    def remove_first(descriptor: int) -> None:
        path.unlink()
        take(descriptor)

    monkeypatch.setattr(lock, "_lock", remove_first)

    assert lock.acquire(path) is None


def test_a_file_system_without_locks_is_used_without(
    place: swap.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(lock.WITHOUT_LOCKS[0], "No locks available")

    monkeypatch.setattr(lock, "_lock", refuse)

    swap.install(place)

    assert place.file.read_bytes() == ours()
    assert not lock.lock_file(place).exists()


def test_another_failure_of_the_lock_is_told(
    site: Path, place: swap.Place, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = tree(site)

    def refuse(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(lock, "_lock", refuse)

    assert run(site, "install") == 2

    assert error_of(capsys) == "eah: error: [Errno 5] Input/output error"
    assert set(tree(site)) == {*before, str(lock.lock_file(place).relative_to(site))}


def test_the_lock_is_held_while_files_change(
    place: swap.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for name in ("_install", "_restore"):
        change_ = getattr(exchange, name)

        def look(*args: Any, change_: Callable[..., str] = change_, **kwargs: Any) -> str:
            seen.append(lock.acquire(lock.lock_file(place)))
            return change_(*args, **kwargs)

        monkeypatch.setattr(exchange, name, look)

    swap.install(place)
    swap.restore(place)

    assert seen == [None, None]


@pytest.mark.parametrize("action", [swap.install, swap.restore])
def test_what_another_process_did_while_one_waited_counts(
    site: Path, place: swap.Place, action: Callable[[swap.Place], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before, original = tree(site), place.file.read_bytes()
    swap.install(place)
    place.file.write_bytes(ours() + b"# of another build")
    waited = exchange.hold_lock

    @contextmanager
    def hold_lock(place: swap.Place) -> Iterator[None]:
        place.original.replace(place.file)  # by a restore
        place.checksum.unlink()
        with waited(place):
            yield

    with monkeypatch.context() as patch:
        patch.setattr(exchange, "hold_lock", hold_lock)
        action(place)

    if action is swap.install:
        assert (place.file.read_bytes(), place.original.read_bytes()) == (ours(), original)
        swap.restore(place)
    assert tree(site) == before


def test_a_status_read_while_another_process_changes_things_is_read_again(
    place: swap.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, readings = states._read, []

    def installed_meanwhile(path: Path) -> bytes | None:
        content = read(path)
        readings.append(path)
        if len(readings) == 2:  # the kept original and its note were not there
            swap.install(place)
        return content

    with monkeypatch.context() as patch:
        patch.setattr(states, "_read", installed_meanwhile)
        found = swap.status(place)

    assert (found.kind, found.kept) == ("ours", "sound")
