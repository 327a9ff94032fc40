"""Ways in which files of a checkpoint are damaged, or are not what they should be."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import models

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 5\n" % (b"a" * 64)
HTML = b"<!DOCTYPE html><html><body>404</body></html>"
# What may stand in the place of any value.
WRONG: tuple[Any, ...] = (
    *("x", "", [], [1], {}, {"a": 1}, None, -1, 0, 10**9, 10**30, True, 1.5),
    *(float("nan"), float("inf"), "\ud800"),
)


def tar() -> bytes:
    """Return an archive with one text."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo("hello.txt")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"hi"))
    return made.getvalue()


def zipped() -> bytes:
    """Return an archive with one text."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("hello.txt", "hi")
    return made.getvalue()


# What stands in the place of a file of any format.
FOREIGN = {
    "empty": b"",
    "text": b"hello world\n" * 20,
    "html": HTML,
    "lfs": LFS,
    "zeros": bytes(10_000),
    "bytes": bytes(range(256)) * 8,
    "zip": zipped(),
    "tar": tar(),
}


def json_damages(text: bytes) -> dict[str, bytes]:
    """Return texts that are no JSON object, or that nobody can tell the meaning of."""
    at = text.index(b"{") + 1

    def with_entry(entry: bytes) -> bytes:
        return text[:at] + entry + b", " + text[at:]

    return {
        **FOREIGN,
        "list": b"[]",
        "null": b"null",
        "string": b'"a"',
        "cut": text[: len(text) // 2],
        "latin-1": with_entry(b'"k": "caf\xe9"'),
        "deep list": with_entry(b'"k": ' + b"[" * 100_000 + b"]" * 100_000),
        "deep object": with_entry(b'"k": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        "key twice": with_entry(b'"k": 1, "k": 2'),
        "5000 digits": with_entry(b'"k": ' + b"9" * 5000),
        "NUL": text + b"\0",
        "gzip": gzip.compress(text),
    }


def replaced(content: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return JSON with another value at a path."""
    copy = json.loads(json.dumps(content))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


def paths(content: dict[str, Any], depth: int = 2) -> Iterator[tuple[str, ...]]:
    """Yield where values are in a JSON object."""
    for key, value in content.items():
        yield (key,)
        if depth > 1 and isinstance(value, dict):
            yield from ((key, *rest) for rest in paths(value, depth - 1))


def place_odd(path: Path, kind: str) -> None:
    """Put something else than a regular file in the place of a file."""
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        links = {"loop": path, "device": Path("/dev/zero"), "nowhere": path.parent / "nowhere"}
        path.symlink_to(links[kind])


def take_away(path: Path) -> None:
    """Remove what `place_odd` put there."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()


ODD = ("folder", "pipe", "loop", "device", "nowhere")


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Fail where something hangs, as in reading a pipe that nobody writes into."""

    def stop(_: int, __: FrameType | None) -> None:
        pytest.fail(f"more than {seconds} seconds")  # no Exception, so that nobody catches it

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def sentence(ask: Callable[[], object]) -> str | None:
    """Return the one sentence that an error of ours says, or None if there is no error."""
    try:
        with at_most(30):
            ask()
    except models.ModelError as error:
        text = str(error)
        assert text.isprintable(), ascii(text)
        assert len(text) < 1200
        return text
    return None


def refused(ask: Callable[[], object], *words: str) -> None:
    """Check that something is refused in one sentence with these words."""
    text = sentence(ask)
    if text is None:
        pytest.fail("it was not refused")
    for word in words:
        assert word in text, (word, text)
