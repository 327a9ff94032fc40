"""Programs that start in milliseconds: a server imports everything once and forks.

What is killed or shared in tests are real processes, which have their own memory and environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CLOSED, FULL, NOBODY = "closed", "/dev/full", "a pipe without a reader"
PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process left: exit status, minus the signal where one killed it, and output."""

    status: int
    out: str
    err: str


class Forks:
    """A server that forks a process for each start of a command."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self._server = server
        self._folder = folder

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        module: str = "eval.pope_eval",
        before: str = "",
        streams: Mapping[int, str] | None = None,
    ) -> int:
        """Start a command, in a process group of its own, and return its process id.

        Args:
            arguments: The command's.
            environment: Variables that it gets besides the server's.
            module: Where its `main` is.
            before: A function that the process calls first, such as "tests.eval.some:function".
            streams: Where 1, standard output, and 2 go: CLOSED, FULL or NOBODY; None for files.
        """
        request = {"arguments": [*arguments], "environment": dict(environment or {})}
        where = {"module": module, "before": before, "folder": str(self._folder)}
        return int(self._ask({**request, **where, "streams": dict(streams or {})}))

    def is_running(self, pid: int) -> bool:
        return bool(self._ask({"running": pid}))

    def wait(self, pid: int) -> Ended:
        status = int(self._ask({"wait": pid}))
        files = [self._folder / f"{pid}.{name}" for name in ("out", "err")]
        out, err = (file.read_text() if file.exists() else "" for file in files)
        return Ended(status, out, err)

    def run(self, arguments: Sequence[str]) -> Ended:
        return self.wait(self.start(arguments))

    def _ask(self, request: Mapping[str, Any]) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


@contextmanager
def forks(folder: Path, *, warm: bool = True) -> Iterator[Forks]:
    """Start the server.

    Args:
        folder: For what the processes print.
        warm: Whether it loads a model first, and with it all that a run imports.
    """
    environment = {key: value for key, value in os.environ.items() if key not in PLACE}
    with subprocess.Popen(
        [sys.executable, __file__, *(["warm"] if warm else [])],
        cwd=ROOT,
        # One thread: a process with several can't be forked safely.
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        yield Forks(server, folder)
        assert server.stdin is not None
        server.stdin.close()


def _child(request: Mapping[str, Any]) -> None:
    """Run the command in a forked process, which ends as one that was started anew."""
    os.setpgid(0, 0)
    for number, name in ((1, "out"), (2, "err")):
        where = request["streams"].get(str(number))
        if where == CLOSED:  # as Python starts then
            os.close(number)
            setattr(sys, f"std{name}", None)
        elif where == NOBODY:
            reader, writer = os.pipe()
            os.dup2(writer, number)
            os.close(reader)
            os.close(writer)
        else:
            path = where or Path(request["folder"]) / f"{os.getpid()}.{name}"
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        if where != CLOSED:  # a new one, as that of the server may remember that it can seek
            setattr(sys, f"std{name}", open(number, "w", buffering=number - 1 or -1, closefd=False))  # noqa: SIM115
    os.environ.update(request["environment"])
    if request["before"]:
        module, _, name = request["before"].partition(":")
        getattr(import_module(module), name)()
    sys.exit(import_module(request["module"]).main(request["arguments"]))


def _serve() -> None:
    if sys.argv[1:]:
        import models

        models.load("tiny-llava", device="cpu")  # imports what a run imports
    ended: dict[int, int] = {}
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "arguments" in request:
            import_module(request["module"])
            answer = os.fork()
            if not answer:
                _child(request)
        else:
            pid = request.get("wait") or request["running"]
            if pid not in ended:
                found, status = os.waitpid(pid, 0 if "wait" in request else os.WNOHANG)
                if found:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = ended[pid] if "wait" in request else pid not in ended
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
