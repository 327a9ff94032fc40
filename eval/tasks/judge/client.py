"""The judge's endpoint: its key, and one request at a time by the official SDK.

The SDK is imported when the first request is due, and its own retries are off, so that a request
that is counted is a request that was sent.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, Final

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.tasks.judge.config import JudgeConfig, endpoint

if TYPE_CHECKING:
    import openai

VARIABLE: Final = "OPENAI_API_KEY"
HIDDEN: Final = "[key]"
# Local servers take "none" or "x", which replies hold for other reasons.
SHORTEST: Final = 8
LONGEST_REASON: Final = 300


class Key:
    """A secret that prints as [key]."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return HIDDEN

    def reveal(self) -> str:
        """Return the secret, for the client that sends it."""
        return self._secret

    def hide(self, text: str) -> str:
        """Return a text without the secret, unless that is shorter than any real key."""
        return text if len(self._secret) < SHORTEST else text.replace(self._secret, HIDDEN)


def read_key(path: Path | None, environment: Mapping[str, str] = os.environ) -> Key:
    """Return the key from a file, or from OPENAI_API_KEY.

    Raises:
        EvaluationError: If there is none, or it can't be one.
    """
    if path is None:
        secret, source = environment.get(VARIABLE, "").strip(), f"the variable {VARIABLE}"
        if not secret:
            raise EvaluationError(
                f"no key: set the environment variable {VARIABLE}, or pass --api-key-file with a "
                "file that holds it (a local server that needs none takes any text)"
            )
    else:
        # The value is not shown: somebody may have typed the key in the place of the file.
        try:
            content, source = path.read_bytes(), "--api-key-file"
        except OSError as error:
            raise EvaluationError(
                f"the file of --api-key-file can't be read: {error.strerror}; it takes the name of "
                "a file that holds the key, not the key"
            ) from None
        secret = content.decode(errors="replace").strip()
    if not (secret.isascii() and secret.isprintable()) or not secret or " " in secret:
        raise EvaluationError(
            f"{source} holds no key: one line of letters, digits and signs is needed, without "
            "spaces; copy it again from the endpoint's page"
        )
    return Key(secret)


class Kind(str, Enum):
    """What went wrong with a request; the last two do not pass."""

    BUSY = "rate limit"
    SERVER = "server error"
    TIMEOUT = "timeout"
    CUT = "connection cut"
    UNREACHED = "endpoint can't be reached"
    GARBLED = "reply is no chat completion"
    REJECTED = "rejected"  # This request.
    HOPELESS = "hopeless"  # Every request.

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

    @property
    def refused(self) -> str | None:
        """Why it is no answer; None if it is one."""
        if not self.refusal and self.finish_reason == "content_filter":
            return "stopped by the endpoint's content filter"
        return self.refusal or None


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


class Judge:
    """The endpoint; close it when done."""

    def __init__(self, config: JudgeConfig, key: Key) -> None:
        """Import the SDK; nothing is sent yet.

        Raises:
            EvaluationError: If it is not installed.
        """
        try:
            import openai
        except ModuleNotFoundError as error:
            raise EvaluationError(
                "the judge is asked with the openai package, which is not installed: "
                "pip install 'openai>=2' (it is in the extra: pip install '.[judge]')"
            ) from error
        self._sdk = openai
        self._config = config
        self._key = key
        self._url = endpoint(config)
        self._client = openai.AsyncOpenAI(
            api_key=key.reveal(), base_url=self._url, max_retries=0, timeout=config.timeout_s
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(self, body: dict[str, Any]) -> Reply | Failure:
        """Send one request, which is the arguments of the chat-completions call."""
        try:
            call = self._client.chat.completions.with_raw_response.create(**body)
            # The SDK's timeout is for each step; a server may send a byte now and then for ever.
            answer = await asyncio.wait_for(call, self._config.timeout_s)
            text = answer.text
        except (asyncio.TimeoutError, self._sdk.APITimeoutError):
            return Failure(Kind.TIMEOUT, f"no reply within {self._config.timeout_s:g} s")
        except self._sdk.APIConnectionError as error:
            return self._unconnected(error)
        except self._sdk.APIStatusError as error:
            return await self._no_model() if error.status_code == 404 else self._refused(error)
        except self._sdk.OpenAIError as error:
            return self._failure(Kind.GARBLED, str(error))
        return self._read(text)

    def _unconnected(self, error: openai.APIConnectionError) -> Failure:
        cause = error.__cause__
        what = f"{type(cause).__name__}: {cause}" if cause else str(error)
        # Of the HTTP library, which the SDK has changed: ConnectError, ConnectTimeout.
        if type(cause).__name__.startswith("Connect"):
            what = f"{self._url} can't be reached ({what}); check --judge-base-url and the network"
            return self._failure(Kind.UNREACHED, what)
        return self._failure(Kind.CUT, what)

    def _refused(self, error: openai.APIStatusError) -> Failure:
        """Return what a status other than 200 and 404 means."""
        status = error.status_code
        body = error.body if isinstance(error.body, dict) else {}
        said = self._words(f"HTTP {status}: {body.get('message') or error.message}")
        if status in (401, 403):
            return Failure(Kind.HOPELESS, f"{self._url} does not accept the key ({said}); set "
                           "OPENAI_API_KEY, or --api-key-file, to one that may use "
                           f"{self._config.judge_model}")  # fmt: skip
        if status == 429 and error.code == "insufficient_quota":
            return Failure(Kind.HOPELESS, f"the account at {self._url} has no credit left ({said})")
        if status in (408, 429) or status >= 500:
            kind = Kind.SERVER if status >= 500 else Kind.BUSY
            return Failure(kind, said, wait_of(error.response.headers))
        return Failure(Kind.REJECTED, said)

    async def _no_model(self) -> Failure:
        """Return a sentence with models of a like name, if the endpoint lists what it has."""
        model = self._config.judge_model
        try:
            found = [one.id async for one in self._client.models.list()]
        except (self._sdk.OpenAIError, ValueError, TypeError):
            found = []
        hint = nearest(model, found).split("known are")[0].strip() if found else ""
        return self._failure(
            Kind.HOPELESS,
            f"{self._url} has no model {model!r} (HTTP 404): {hint or 'check the name and the URL'}"
            "; pass another --judge-model",
        )

    def _read(self, text: str) -> Reply | Failure:
        """Read the body of a reply, which any server may have written."""
        try:
            content = json.loads(text)
            choice = content["choices"][0]
            message, usage = choice["message"], content.get("usage") or {}
            said, refusal = message.get("content"), message.get("refusal")
            return Reply(
                text=self._key.hide(said or ""),
                refusal=self._key.hide(refusal) if refusal else None,
                finish_reason=choice.get("finish_reason"),
                model=content.get("model"),
                prompt_tokens=_count(usage.get("prompt_tokens")),
                reply_tokens=_count(usage.get("completion_tokens")),
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return self._failure(Kind.GARBLED, f"{text[:80]!r} is no chat completion")

    def _failure(self, kind: Kind, text: str) -> Failure:
        return Failure(kind, self._words(text))

    def _words(self, text: str) -> str:
        """Return an endpoint's words on one line, without the key."""
        return self._key.hide(" ".join(text.split()))[:LONGEST_REASON]


def wait_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Retry-After tells to wait, as a number or a date; None without it."""
    for name, per_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        with suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) / per_second)
    with suppress(KeyError, ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time())
    return None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
