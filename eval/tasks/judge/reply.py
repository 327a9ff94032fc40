"""What comes of one request: a reply, or what went wrong and whether that passes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(str, Enum):
    """What went wrong with a request."""

    BUSY = "rate limit"
    SERVER = "server error"
    TIMEOUT = "timeout"
    CUT = "connection cut"
    UNREACHED = "endpoint can't be reached"
    GARBLED = "reply is no chat completion"
    REJECTED = "rejected"  # This request, not in passing.
    HOPELESS = "hopeless"  # Every request.

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self not in (Kind.REJECTED, Kind.HOPELESS)

    @property
    def free(self) -> bool:
        """Whether nothing is charged for it: the endpoint said that it did no work."""
        return self not in (Kind.TIMEOUT, Kind.CUT, Kind.GARBLED)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the judge said, and what it took; None where the endpoint did not say."""

    text: str
    refusal: str | None
    finish_reason: str | None
    model: str | None
    prompt_tokens: int | None
    reply_tokens: int | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without a reply.

    Attributes:
        kind: What went wrong.
        reason: In words, without the key.
        wait_s: How long the endpoint tells to wait; None if it does not.
    """

    kind: Kind
    reason: str
    wait_s: float | None = None
