"""The lines of judgements.jsonl: their form, checked when they are read, and files of them.

A line of this run's own file that is damaged stops the run before anything is asked: what it said
may be an answer that is paid for. Other runs' files are read for what they may save; what can't be
read of them is named and left out.
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

# Above all that a setting allows a request to cost, so that sums stay numbers.
MOST_USD: Final = 1e18
MOST_REQUESTS: Final = 10**12
# Bytes of a line: a text of which each character takes six, twice over for a caption beside it.
LONGEST_LINE: Final = 16 * LONGEST_TEXT


@dataclass(frozen=True, slots=True)
class Sent:
    """What a later start needs to know of a request that was about to be sent; numbers from 1."""

    request: int
    key: str
    image_id: ImageId
    order: str
    most_usd: float


@dataclass(frozen=True, slots=True)
class Damaged:
    """A line that is no request and no reply, or a whole file, then without a number."""

    number: int | None
    reason: str

    @property
    def where(self) -> str:
        """Return the line and what is wrong with it, in words."""
        return self.reason if self.number is None else f"line {self.number}: {self.reason}"


def read_events(path: Path) -> Iterator[Sent | Outcome | Damaged]:
    """Yield what each line of a file says; a last line without an end is still being written."""
    try:
        # Without waiting for somebody to write into a pipe.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return
    except OSError as error:
        yield Damaged(None, str(error.strerror))
        return
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        yield Damaged(None, "it is no file")
        return
    with os.fdopen(descriptor, "rb") as file:
        yield from _lines(file)


def event_of(record: Any) -> Sent | Outcome:
    """Return what a record says.

    Raises:
        ValueError: If it is no request and no reply, or a value has another type than ours have.
    """
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    event = record.get("event")
    if event not in ("sent", "reply"):
        raise ValueError(f"its event is {event!r:.40}, neither 'sent' nor 'reply'")
    kind: type[Sent] | type[Outcome] = Sent if event == "sent" else Outcome
    known = {item.name: record[item.name] for item in fields(kind) if item.name in record}
    # Of runs that were paid for before replies were checked when they came.
    known |= {name: None for name in _UNSAID if name in known and not _FORM[name][1](known[name])}
    try:
        found = kind(**known)
    except TypeError as error:
        # Of the class: "Sent.__init__() missing 1 required positional argument: 'key'".
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
            yield Damaged(number, "it is longer than any of ours")
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


def _is_said(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or (type(value) is int and value >= 0)


def _is_number(value: Any) -> bool:
    return value is None or (type(value) is int and 0 < value <= MOST_REQUESTS)


def _is_usd(value: Any) -> bool:
    # nan is in no range.
    return type(value) in (int, float) and 0 <= value <= MOST_USD


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value <= MOST_TOKENS)


_UNSAID: Final = ("finish_reason", "model", "prompt_tokens", "reply_tokens")
_TEXT: Final = ("a text", _is_text)
_SAID: Final = ("a text or null", _is_said)
_USD: Final = ("a number from 0 on", _is_usd)
_COUNT: Final = ("a whole number from 0 on, or null", _is_count)
_FORM: Final = {
    "request": ("a whole number from 1 on", _is_number),
    "key": _TEXT,
    "image_id": ("a whole number from 0 on, or a text", _is_id),
    "order": _TEXT,
    "outcome": _TEXT,
    "at": _TEXT,
    "most_usd": _USD,
    "cost_usd": _USD,
    "reason": _SAID,
    "text": _SAID,
    "finish_reason": _SAID,
    "model": _SAID,
    "borrowed_from": _SAID,
    "prompt_tokens": _COUNT,
    "reply_tokens": _COUNT,
}
