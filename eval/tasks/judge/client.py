"""One request to the judge, by the official SDK: a reply, or what went wrong and whether it passes.

The SDK's own retries are off, so that a request that is counted is a request that was sent.
"""

from __future__ import annotations

import asyncio
import json
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Final

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.tasks.judge.config import JudgeConfig, endpoint
from eval.tasks.judge.key import Key
from eval.tasks.judge.reply import Failure, Kind, Reply

try:
    import openai
except ModuleNotFoundError as error:
    raise EvaluationError(
        "the judge is asked with the openai package, which is not installed: "
        "pip install 'openai>=2' (it is in the extra: pip install '.[judge]')"
    ) from error

LONGEST_REASON: Final = 300


class Judge:
    """The endpoint; close it when done."""

    def __init__(self, config: JudgeConfig, key: Key) -> None:
        self._config = config
        self._key = key
        self._url = endpoint(config)
        self._client = openai.AsyncOpenAI(
            api_key=key.reveal(),
            base_url=self._url,
            max_retries=0,
            timeout=config.timeout_s,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(self, body: dict[str, Any]) -> Reply | Failure:
        """Send one request.

        Args:
            body: Arguments of the chat-completions call.
        """
        try:
            call = self._client.chat.completions.with_raw_response.create(**body)
            # The SDK's timeout is for each step; a server may send a byte now and then for ever.
            answer = await asyncio.wait_for(call, self._config.timeout_s)
            text = answer.text
        except (asyncio.TimeoutError, openai.APITimeoutError):
            return Failure(Kind.TIMEOUT, f"no reply within {self._config.timeout_s:g} s")
        except openai.APIConnectionError as error:
            return self._unconnected(error)
        except openai.APIStatusError as error:
            failure = self._refused(error)
        except openai.OpenAIError as error:
            return Failure(Kind.GARBLED, self._words(str(error)))
        else:
            return self._read(text)
        return failure if failure is not None else await self._no_model()

    def _unconnected(self, error: openai.APIConnectionError) -> Failure:
        cause = error.__cause__
        what = f"{type(cause).__name__}: {cause}" if cause else str(error)
        # Of the HTTP library, which the SDK has changed: ConnectError, ConnectTimeout.
        if type(cause).__name__.startswith("Connect"):
            return Failure(Kind.UNREACHED, self._words(
                f"{self._url} can't be reached ({what}); check --judge-base-url and the network"
            ))  # fmt: skip
        return Failure(Kind.CUT, self._words(what))

    def _refused(self, error: openai.APIStatusError) -> Failure | None:
        """Return what a status other than 200 means; None for a model that is not there."""
        status = error.status_code
        body = error.body if isinstance(error.body, dict) else {}
        said = self._words(f"HTTP {status}: {body.get('message') or error.message}")
        if status in (401, 403):
            return Failure(Kind.HOPELESS, f"{self._url} does not accept the key ({said}); set "
                           "OPENAI_API_KEY, or --api-key-file, to one that may use "
                           f"{self._config.judge_model}")  # fmt: skip
        if status == 404:
            return None
        if status == 429 and error.code == "insufficient_quota":
            return Failure(Kind.HOPELESS, f"the account at {self._url} has no credit left ({said})")
        if status in (408, 429) or status >= 500:
            kind = Kind.SERVER if status >= 500 else Kind.BUSY
            return Failure(kind, said, wait_of(dict(error.response.headers)))
        return Failure(Kind.REJECTED, said)

    async def _no_model(self) -> Failure:
        """Return a sentence with models of a like name, if the endpoint lists what it has."""
        model = self._config.judge_model
        try:
            found = [one.id async for one in self._client.models.list()]
        except (openai.OpenAIError, ValueError, TypeError):
            found = []
        hint = nearest(model, found).split("known are")[0].strip() if found else ""
        return Failure(Kind.HOPELESS, self._words(
            f"{self._url} has no model {model!r} (HTTP 404): {hint or 'check the name and the URL'}"
            "; pass another --judge-model"
        ))  # fmt: skip

    def _read(self, text: str) -> Reply | Failure:
        """Read the body of a reply, which any server may have written."""
        try:
            content = json.loads(text)
            choice = content["choices"][0]
            message, usage = choice["message"], content.get("usage") or {}
            said, refusal = message.get("content"), message.get("refusal")
            reply = Reply(
                text=self._key.hide(said or ""),
                refusal=self._key.hide(refusal) if refusal else None,
                finish_reason=choice.get("finish_reason"),
                model=content.get("model"),
                prompt_tokens=_count(usage.get("prompt_tokens")),
                reply_tokens=_count(usage.get("completion_tokens")),
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return Failure(Kind.GARBLED, self._words(f"{text[:80]!r} is no chat completion"))
        return reply

    def _words(self, text: str) -> str:
        """Return an endpoint's words on one line, without the key."""
        return self._key.hide(" ".join(text.split()))[:LONGEST_REASON]


def wait_of(headers: dict[str, str]) -> float | None:
    """Return the seconds that Retry-After tells to wait, as a number or a date; None without it."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, TypeError):
        return None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
