"""Read and validate the lines of judgements.jsonl.

A damaged line in the run's own file stops the run before anything is sent, because it may have been
a paid answer. Files of other runs are read to reuse their answers; their damaged lines are reported
and skipped.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Final

from eval.files.image_ids import ImageId
from eval.tasks.judge.replies import LONGEST_TEXT, MOST_TOKENS
from eval.tasks.judge.requests import Outcome
from models.json_files import json_fault, parse_json

# Above any cost that the settings allow for a request, so that sums stay finite.
MOST_USD: Final = 1e18
MOST_REQUESTS: Final = 10**12
# Bytes of a line: a text with six bytes per character, doubled for a caption next to it.
LONGEST_LINE: Final = 16 * LONGEST_TEXT


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was about to be sent, as a later start needs it; requests count from 1."""

    request: int
    key: str
    image_id: ImageId
    order: str
    most_usd: float


@dataclass(frozen=True, slots=True)
class Damaged:
    """A line that is neither a request nor a reply; without a number, a whole file."""

    number: int | None
    reason: str

    @property
    def where(self) -> str:
        """Return the line number and what is wrong with the line, as text."""
        return self.reason if self.number is None else f"line {self.number}: {self.reason}"


def read_events(path: Path) -> Iterator[Sent | Outcome | Damaged]:
    """Yield the content of each line; an unterminated last line is still being written."""
    try:
        # Non-blocking, since a pipe may never get a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return
    except OSError as error:
        yield Damaged(None, str(error.strerror))
        return
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        yield Damaged(None, "it is not a regular file")
        return
    with os.fdopen(descriptor, "rb") as file:
        yield from _lines(file)


def event_of(record: Any) -> Sent | Outcome:
    """Convert a record to a request or a reply.

    Raises:
        ValueError: If it is neither a request nor a reply, or a value has an invalid type.
    """
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    event = record.get("event")
    if event not in ("sent", "reply"):
        raise ValueError(f"its event is {event!r:.40}, neither 'sent' nor 'reply'")
    kind: type[Sent] | type[Outcome] = Sent if event == "sent" else Outcome
    known = {item.name: record[item.name] for item in fields(kind) if item.name in record}
    # Earlier versions did not check these values of paid replies.
    known |= {name: None for name in _OPTIONAL if name in known and not _FORM[name][1](known[name])}
    try:
        found = kind(**known)
    except TypeError as error:
        # The message is "Sent.__init__() missing 1 required positional argument: 'key'".
        raise ValueError(str(error).partition("() ")[2]) from None
    for name, (allowed, check) in _FORM.items():
        if name in known and not check(known[name]):
            raise ValueError(f"{name} is {known[name]!r:.40}, but it must be {allowed}")
    if event == "sent" and known["request"] is None:
        raise ValueError("its request has no number")
    return found


def _lines(file: BinaryIO) -> Iterator[Sent | Outcome | Damaged]:
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            yield Damaged(number, f"it is longer than {LONGEST_LINE:,} bytes")
            return
        if not line.endswith(b"\n"):
            return
        if not line.strip():
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError:
            yield Damaged(number, "it is not UTF-8")
            continue
        try:
            yield event_of(parse_json(text))
        except json.JSONDecodeError as error:
            yield Damaged(number, error.msg)
        except ValueError as error:
            yield Damaged(number, json_fault(error))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_optional_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or (type(value) is int and value >= 0)


def _is_number(value: Any) -> bool:
    return value is None or (type(value) is int and 0 < value <= MOST_REQUESTS)


def _is_usd(value: Any) -> bool:
    # nan fails the comparison.
    return type(value) in (int, float) and 0 <= value <= MOST_USD


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value <= MOST_TOKENS)


_OPTIONAL: Final = ("finish_reason", "model", "prompt_tokens", "reply_tokens")
_TEXT: Final = ("text", _is_text)
_OPTIONAL_TEXT: Final = ("text or null", _is_optional_text)
_USD: Final = ("a number of at least 0", _is_usd)
_COUNT: Final = ("a whole number of at least 0, or null", _is_count)
_FORM: Final = {
    "request": ("a whole number of at least 1", _is_number),
    "key": _TEXT,
    "image_id": ("a whole number of at least 0, or text", _is_id),
    "order": _TEXT,
    "outcome": _TEXT,
    "at": _TEXT,
    "most_usd": _USD,
    "cost_usd": _USD,
    "reason": _OPTIONAL_TEXT,
    "text": _OPTIONAL_TEXT,
    "finish_reason": _OPTIONAL_TEXT,
    "model": _OPTIONAL_TEXT,
    "borrowed_from": _OPTIONAL_TEXT,
    "prompt_tokens": _COUNT,
    "reply_tokens": _COUNT,
}
