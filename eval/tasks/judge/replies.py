"""Parse and check the replies of an endpoint, which can be any server.

Only the text is required. Other values of a wrong type or an impossible size count as missing, so
that a paid reply is not discarded because of them. Everything is limited in size and free of the
key before it is stored, and can be read back unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from math import isnan
from time import time
from typing import Any, Final

from eval.tasks.judge.keys import Key
from models.json_files import json_fault

LONGEST_REASON: Final = 300
LONGEST_NAME: Final = 200
LONGEST_TEXT: Final = 1_000_000
# Bytes of a body: a character takes at most six bytes in JSON.
LONGEST_BODY: Final = 8 * LONGEST_TEXT
MOST_TOKENS: Final = 10**8
# Longest number that is parsed, in digits.
MOST_DIGITS: Final = 20
SHOWN_BODY: Final = 80
# Characters that are searched for the key in texts that are then cut to a few hundred.
FAR: Final = 50_000
# Types of the parts of a text, which some servers send in several parts.
TEXT_PARTS: Final = ("text", "output_text")


class Kind(str, Enum):
    """What went wrong with a request; the last two can't be solved by retrying."""

    BUSY = "rate limit"
    SERVER = "server error"
    TIMEOUT = "timeout"
    CUT = "connection cut"
    UNREACHED = "endpoint can't be reached"
    GARBLED = "reply is not a chat completion"
    PAGE = "reply is a web page"
    REJECTED = "rejected"  # This request.
    HOPELESS = "hopeless"  # Every request.

    @property
    def free(self) -> bool:
        """Whether the request costs nothing, because the endpoint reported that it did no work."""
        return self not in (Kind.TIMEOUT, Kind.CUT, Kind.GARBLED, Kind.PAGE)


@dataclass(frozen=True, slots=True)
class Reply:
    """The judge's reply with its token counts; values that the endpoint did not send are None."""

    text: str
    refusal: str | None
    finish_reason: str | None
    model: str | None
    prompt_tokens: int | None
    reply_tokens: int | None

    @property
    def refused(self) -> str | None:
        """Why the judge refused to answer; None if it answered."""
        if not self.refusal and self.finish_reason == "content_filter":
            return "stopped by the endpoint's content filter"
        return self.refusal or None


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without a reply.

    Attributes:
        kind: What went wrong.
        reason: In words, without the key.
        wait_s: Seconds to wait, as requested by the endpoint; None without such a request.
    """

    kind: Kind
    reason: str
    wait_s: float | None = None


def read_reply(body: bytes, key: Key) -> Reply | Failure:
    """Read the body of a reply; the key is hidden before anything is cut."""
    try:
        # A byte order mark is dropped, and invalid UTF-8 only replaces the affected characters.
        content = json.loads(
            body.decode("utf-8-sig", errors="replace"),
            object_pairs_hook=_object,
            parse_int=_integer,
        )
        choice = content["choices"][0]
        message = choice["message"]
        text, refusal = _text(message.get("content")), message.get("refusal")
    except RecursionError:
        return _no_reply(body, key, ": nested too deep")
    except ValueError as error:
        return _no_reply(body, key, f": {json_fault(error)}")
    except (KeyError, IndexError, TypeError, AttributeError):
        return _no_reply(body, key, ", which has choices with a message each")
    usage = content.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(
        text=cut(text, key, LONGEST_TEXT),
        refusal=cut(refusal, key, LONGEST_REASON) if isinstance(refusal, str) else None,
        finish_reason=_name(choice.get("finish_reason"), key),
        model=_name(content.get("model"), key),
        prompt_tokens=_count(counts.get("prompt_tokens")),
        reply_tokens=_count(counts.get("completion_tokens")),
    )


def cut(text: str, key: Key, longest: int) -> str:
    """Return the start of an external text, without the key and without half surrogate pairs.

    The key is hidden before cutting, which could leave a part of it that is too short to recognise.
    """
    # Much longer than the result, so that a part of the key at this end is not in the result.
    start = text[: 2 * longest + FAR].encode("utf-8", errors="replace").decode()
    return key.hide(start)[:longest]


def words(text: str, key: Key, longest: int = LONGEST_REASON) -> str:
    """Return an endpoint's words on one line that a terminal can show, without the key."""
    line = " ".join(cut(text, key, FAR).split())
    return cut("".join(one if one.isprintable() else "?" for one in line), key, longest)


def wait_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of Retry-After, which is a number or a date; None without it."""
    for name, per_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        with suppress(KeyError, ValueError):
            seconds = float(headers[name]) / per_second
            return None if isnan(seconds) else max(0.0, seconds)
    with suppress(KeyError, ValueError, TypeError, OverflowError, OSError):
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time())
    return None


def _no_reply(body: bytes, key: Key, why: str) -> Failure:
    text = body.decode("utf-8", errors="replace").strip()
    if not text:
        return Failure(Kind.GARBLED, "the endpoint sent nothing instead of a chat completion")
    start = cut(text, key, SHOWN_BODY)
    if text.startswith("<"):
        return Failure(Kind.PAGE, f"got a web page instead of a chat completion ({start!r}); check "
                       "--judge-base-url, which usually ends in /v1")  # fmt: skip
    if len(body) > LONGEST_BODY:
        return Failure(
            Kind.GARBLED, f"got more than {LONGEST_BODY:,} bytes, which start with {start!r}"
        )
    return Failure(Kind.GARBLED, f"{start!r} is not a chat completion{cut(why, key, SHOWN_BODY)}")


def _text(content: Any) -> str:
    """Return a message's text, which some servers send in parts."""
    if isinstance(content, list):
        return "".join(_part(part) for part in content)
    if content is not None and not isinstance(content, str):
        raise TypeError
    return content or ""


def _part(part: Any) -> str:
    if isinstance(part, dict) and part.get("type") in TEXT_PARTS:
        return _text(part.get("text"))
    raise TypeError


def _name(value: Any, key: Key) -> str | None:
    return words(value, key, LONGEST_NAME) if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    """Return a number of tokens; None if it is invalid or impossibly large."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= MOST_DIGITS else None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a duplicate key")
    return found
