"""A judge for tests: real HTTP on 127.0.0.1, chat completions, and faults on a plan by seed.

In a thread by `serve`, or in a process of its own by `serve_apart`, as one that outlives whoever
asks it; `python -m tests.eval.judge_stub LOG` is that process.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL = "stub-judge"
SECRET = "sk-test-0123456789abcdefghijklmnop"
PASSING = ("slow", "busy", "error", "cut", "garbled")
LASTING = ("refusal", "unreadable", "rejected")
RETRY_AFTER_S = 0.05
USAGE = {"prompt_tokens": 700, "completion_tokens": 60, "total_tokens": 760}

Answer = Callable[[str], str]


def grades_by_hash(text: str) -> str:
    """Return a reply that depends on what was asked, and on nothing else."""
    a, b, c, d = (1 + byte % 10 for byte in hashlib.sha256(text.encode()).digest()[:4])
    return f"Accuracy: {a} {b}\nReason: so.\n\nDetailedness: {c}, {d}\nReason: so."


def prefers_first(text: str) -> str:
    return "Accuracy: 9 4\nReason: first.\n\nDetailedness: 8 3\nReason: first."


@dataclass
class Call:
    """One request as it came."""

    text: str
    body: dict[str, Any]
    authorization: str
    at: float


@dataclass
class Stub:
    """What the server does, and what it saw.

    Attributes:
        answer: From what is asked to a reply.
        seed: Of the faults; None for none.
        passing: Whether faults that pass happen too, or only those that last.
        latency_s: Before each reply.
        slow_s: Before each slow one.
        fault: Replaces the plan by seed: from text and attempt (from 1) to a fault or "well".
        hold_from: Replies from this one on, counted from 0, wait for `release`.
        release: Lets the replies go that are held.
        raw: From what is asked to all of a reply: status, headers and body; None for the plan.
            Without a Content-Length the body ends with the connection.
        endless: Sent again and again behind a raw body, until nobody listens.
        log: A file that gets a line when a request comes, and one when its reply is on its way.
        asked: How often each thing was asked, by `asked_as`; `paid` by text.
    """

    answer: Answer = grades_by_hash
    seed: int | None = None
    passing: bool = True
    latency_s: float = 0.0
    slow_s: float = 0.2
    fault: Callable[[str, int], str] | None = None
    hold_from: int | None = None
    release: threading.Event = field(default_factory=threading.Event)
    usage: dict[str, int] | None = field(default_factory=lambda: dict(USAGE))
    retry_after: str = str(RETRY_AFTER_S)
    raw: Callable[[str], tuple[int, dict[str, str], bytes]] | None = None
    endless: bytes = b""
    log: Path | None = None
    calls: list[Call] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.at_once = 0

    def fault_of(self, text: str, attempt: int) -> str:
        """Return what happens to an attempt at a text."""
        if self.fault is not None:
            return self.fault(text, attempt)
        if self.seed is None:
            return "well"
        drawn = random.Random(f"{self.seed}/{hashlib.sha256(text.encode()).hexdigest()}")
        kind = drawn.choice(["well", *PASSING, *LASTING])
        if kind in LASTING:
            return kind
        return kind if self.passing and attempt <= drawn.randint(1, 3) else "well"

    def note(self, event: str, body: dict[str, Any]) -> None:
        """Write a line to the log, if there is one; its end is on the disk with its start."""
        if self.log is not None:
            line = json.dumps({"event": event, "as": asked_as(body), "text": text_of(body)})
            with self.lock, self.log.open("a") as file:
                file.write(line + "\n")

    def attempts(self, text: str) -> int:
        return sum(call.text == text for call in self.calls)


def text_of(body: dict[str, Any]) -> str:
    parts = body["messages"][0]["content"]
    return next(str(part["text"]) for part in parts if part["type"] == "text")


def asked_as(body: dict[str, Any]) -> str:
    """Return a hash of all that is asked: text, picture and parameters."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@contextmanager
def serve(stub: Stub) -> Iterator[Stub]:
    """Run the server while in the block; `stub.url` is its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_json(200, {"object": "list", "data": [
                {"id": MODEL, "object": "model", "created": 0, "owned_by": "tests"}
            ]})  # fmt: skip

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            authorization = self.headers.get("Authorization", "")
            text = text_of(body)
            with stub.lock:
                stub.calls.append(Call(text, body, authorization, time.monotonic()))
                stub.asked[asked_as(body)] += 1
                attempt = stub.attempts(text)
                held = stub.hold_from is not None and len(stub.calls) > stub.hold_from
                stub.at_once += 1
                stub.most_at_once = max(stub.most_at_once, stub.at_once)
            stub.note("asked", body)
            try:
                if held:
                    stub.release.wait(3600)
                self.respond(body, text, attempt, authorization)
            finally:
                with stub.lock:
                    stub.at_once -= 1

        def respond(self, body: dict[str, Any], text: str, attempt: int, sent: str) -> None:
            if stub.raw is not None:
                return self.send_raw(*stub.raw(text))
            if sent != f"Bearer {SECRET}":
                return self.fail(401, f"Incorrect API key provided: {sent.split()[-1]}.")
            if body["model"] != MODEL:
                return self.fail(404, f"The model `{body['model']}` does not exist")
            time.sleep(stub.latency_s)
            kind = stub.fault_of(text, attempt)
            if kind == "slow":
                time.sleep(stub.slow_s)
            elif kind == "busy":
                return self.fail(429, f"Slow down, {SECRET}", {"Retry-After": stub.retry_after})
            elif kind == "error":
                return self.fail(500, "Something broke")
            elif kind == "down":
                return self.fail(503, "Back soon", {"Retry-After": stub.retry_after})
            elif kind == "rejected":
                return self.fail(400, f"The picture of {SECRET} is not allowed")
            elif kind == "cut":
                return self.cut()
            elif kind == "garbled":
                return self.send_bytes(200, b'{"choices": [{"message": {"content": "Accur')
            elif kind == "trickle":
                return self.trickle()
            return self.complete(kind, text, body)

        def complete(self, kind: str, text: str, body: dict[str, Any]) -> None:
            message: dict[str, Any] = {"role": "assistant", "content": stub.answer(text)}
            if kind == "refusal":
                message = {"role": "assistant", "content": None, "refusal": "I can't judge that."}
            if kind == "unreadable":
                message["content"] = f"Both are fine, says {SECRET}: 8 of 10 for each."
            completion = {
                "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": MODEL,
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": stub.usage,
            }  # fmt: skip
            stub.note("paid", body)
            with stub.lock:
                stub.paid[text] += 1
            self.send_json(200, completion)

        def fail(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
            self.send_json(status, {"error": {"message": message, "code": None}}, headers)

        def send_json(
            self, status: int, content: Any, headers: dict[str, str] | None = None
        ) -> None:
            self.send_bytes(status, json.dumps(content).encode(), headers)

        def send_bytes(
            self, status: int, content: bytes, headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

        def send_raw(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            while stub.endless:
                self.wfile.write(stub.endless)
            self.wfile.flush()
            self.close_connection = "Content-Length" not in headers

        def trickle(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)

        def cut(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *arguments: Any) -> None:
            pass  # A client that was killed is what a test wants.

    server = Server(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.release.set()
        server.shutdown()
        server.server_close()


@contextmanager
def serve_apart(log: Path) -> Iterator[str]:
    """Run a server in a process of its own while in the block, and yield its address.

    The log gets a line for each request that comes, and for each that is paid, see `log_of`.
    """
    command = [sys.executable, "-m", "tests.eval.judge_stub", str(log)]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def log_of(path: Path) -> dict[str, Counter[str]]:
    """Return how often each thing was asked, and how often it was paid, by `asked_as`."""
    found: dict[str, Counter[str]] = {"asked": Counter(), "paid": Counter()}
    for line in path.read_text().splitlines() if path.exists() else ():
        row = json.loads(line)
        found[row["event"]][row["as"]] += 1
    return found


if __name__ == "__main__":
    with serve(Stub(log=Path(sys.argv[1]), latency_s=0.02)) as own:
        print(own.url, flush=True)
        threading.Event().wait()
