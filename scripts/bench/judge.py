"""Measure how much faster the judge is asked with several workers.

    python scripts/bench/judge.py --latency 0.2 --workers 1 8 --judgements 96

The judge is a server on this machine that replies after a fixed time; no request leaves the
machine. The server measures the time from the first request to the last reply.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from eval import gpt4v_eval
from eval.command import finish

REPLY = "Accuracy: 8 7\nReason: a.\n\nDetailedness: 6 5\nReason: b."


class Clock:
    """Times of the first request and the last reply, in seconds."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.requests = 0


@contextmanager
def serve(latency_s: float, clock: Clock) -> Iterator[str]:
    """Run a judge that replies after a fixed time, and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_POST(self) -> None:
            clock.times.append(time.perf_counter())
            clock.requests += 1
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(latency_s)
            choice = {"index": 0, "message": {"role": "assistant", "content": REPLY},
                      "finish_reason": "stop"}  # fmt: skip
            content = json.dumps({"model": "bench", "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            clock.times.append(time.perf_counter())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def measure(latency_s: float, workers: int, judgements: int) -> float:
    """Return judgements a second.

    Args:
        latency_s: Latency of the judge, in seconds.
        workers: Concurrent requests.
        judgements: Requests to send.
    """
    clock = Clock()
    with tempfile.TemporaryDirectory() as name, serve(latency_s, clock) as url:
        folder = Path(name)
        for image_id in range(judgements):
            size = (640, 480)  # Most of COCO.
            Image.effect_noise(size, 40).save(folder / f"{image_id:012}.jpg")
        for answers in ("one", "two"):
            rows = ({"image_id": at, "caption": f"{answers} {at}"} for at in range(judgements))
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{answers}.jsonl").write_text(text)
        with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(
            nothing
        ):  # fmt: skip
            status = gpt4v_eval.main([
                "--answers-1", str(folder / "one.jsonl"), "--answers-2", str(folder / "two.jsonl"),
                "--data-path", name, "--judge-model", "bench", "--judge-base-url", url,
                "--judge-workers", str(workers), "--single-order", "--output-dir", name,
                "--num-images", str(judgements),
            ])  # fmt: skip
    if status or clock.requests != judgements:
        raise SystemExit(f"{clock.requests} of {judgements} requests, status {status}")
    return judgements / (max(clock.times) - min(clock.times))


def run(arguments: Sequence[str] | None = None) -> None:
    """Print one line per number of workers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.2, metavar="SECONDS")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--judgements", type=int, default=96)
    given = parser.parse_args(arguments)
    os.environ["OPENAI_API_KEY"] = "none"
    first = None
    for workers in given.workers:
        rate = measure(given.latency, workers, given.judgements)
        first = first or rate
        print(f"{workers} worker(s): {rate:.2f} judgements/s, {rate / first:.2f} times the first")
        sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish("bench_judge", lambda: run(arguments), interrupted="run it again")


if __name__ == "__main__":
    sys.exit(main())
