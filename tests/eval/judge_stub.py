"""A judge for tests: real HTTP on 127.0.0.1, chat completions, and faults on a plan by seed."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
    calls: list[Call] = field(default_factory=list)
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

    def attempts(self, text: str) -> int:
        return sum(call.text == text for call in self.calls)


def text_of(body: dict[str, Any]) -> str:
    parts = body["messages"][0]["content"]
    return next(str(part["text"]) for part in parts if part["type"] == "text")


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
                attempt = stub.attempts(text)
                held = stub.hold_from is not None and len(stub.calls) > stub.hold_from
                stub.at_once += 1
                stub.most_at_once = max(stub.most_at_once, stub.at_once)
            try:
                if held:
                    stub.release.wait(3600)
                self.respond(body, text, attempt, authorization)
            finally:
                with stub.lock:
                    stub.at_once -= 1

        def respond(self, body: dict[str, Any], text: str, attempt: int, sent: str) -> None:
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
            return self.complete(kind, text)

        def complete(self, kind: str, text: str) -> None:
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
            self.send_json(200, completion)
            with stub.lock:
                stub.paid[text] += 1

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
