"""The judge's endpoint: one request at a time, by the official SDK.

The SDK is imported when the first request is due. Its own retries are off, so that a request that
is counted is a request that was sent; so are redirects, so that answers and pictures go nowhere
else; and whatever it gets is bounded before it sees it.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from eah.errors import nearest
from eval.errors import EvaluationError
from eval.tasks.judge.config import JudgeConfig, endpoint
from eval.tasks.judge.keys import Key
from eval.tasks.judge.replies import (
    LONGEST_BODY,
    LONGEST_NAME,
    Failure,
    Kind,
    Reply,
    read_reply,
    wait_of,
    words,
)
from eval.tasks.judge.urls import where_to

if TYPE_CHECKING:
    import openai

# Of what an endpoint says besides the body.
KEPT_HEADERS: Final = ("retry-after", "retry-after-ms", "location")
# Names of models that a like one is looked for among.
MOST_MODELS: Final = 2000


def _client_class(sdk: Any) -> Any:
    """Return the SDK's HTTP client, but with bounded replies and without redirects.

    Proxies and certificates of the environment are those that the HTTP library takes.
    """

    class Bounded(sdk.DefaultAsyncHttpxClient):  # type: ignore[misc]  # known when it is imported
        def __init__(self) -> None:
            # Packed, a few bytes may stand for gigabytes.
            super().__init__(follow_redirects=False, headers={"Accept-Encoding": "identity"})

        async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
            """Return a response that is there as a whole, and is cut where it goes on for ever."""
            response = await super().send(request, stream=True, **options)
            body = bytearray()
            try:
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > LONGEST_BODY:
                        break
            finally:
                await response.aclose()
            content = _unpacked(bytes(body), response.headers.get("content-encoding", ""))
            # Of the headers only what is read: one may name an encoding that means work.
            headers = {name: response.headers[name] for name in KEPT_HEADERS
                       if name in response.headers}  # fmt: skip
            headers["content-type"] = "application/json"
            return type(response)(
                response.status_code, headers=headers, content=content, request=request
            )

    return Bounded


def _unpacked(body: bytes, encoding: str) -> bytes:
    """Return a body that a server has packed nevertheless, and no more of it than is read."""
    if encoding.strip().lower() not in ("gzip", "deflate"):
        return body
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, LONGEST_BODY + 1)
    except zlib.error:
        return body  # no chat completion


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
        client_class = _client_class(openai)
        http = import_module(openai.DefaultAsyncHttpxClient.__bases__[0].__module__.split(".")[0])
        try:
            self._client = openai.AsyncOpenAI(
                api_key=key.reveal(),
                base_url=self._url,
                max_retries=0,
                timeout=config.timeout_s,
                http_client=client_class(),
            )
        except (OSError, ValueError, ImportError, http.InvalidURL, openai.OpenAIError) as error:
            # Not in its words, which may hold a proxy's password.
            raise EvaluationError(
                f"no connection can be set up ({type(error).__name__}); check the proxies in "
                "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, the certificates in SSL_CERT_FILE and "
                "SSL_CERT_DIR, and variables that start with OPENAI_"
            ) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(self, body: dict[str, Any]) -> Reply | Failure:
        """Send one request, which is the arguments of the chat-completions call."""
        try:
            call = self._client.chat.completions.with_raw_response.create(**body)
            # The SDK's timeout is for each step; a server may send a byte now and then for ever.
            answer = await asyncio.wait_for(call, self._config.timeout_s)
            content = answer.content
        except (asyncio.TimeoutError, self._sdk.APITimeoutError):
            return Failure(Kind.TIMEOUT, f"no reply within {self._config.timeout_s:g} s")
        except self._sdk.APIConnectionError as error:
            return self._unconnected(error)
        except self._sdk.APIStatusError as error:
            return await self._no_model() if error.status_code == 404 else self._refused(error)
        except (self._sdk.OpenAIError, RecursionError) as error:
            return self._failure(Kind.GARBLED, str(error))
        except ValueError as error:  # Of a header that can't be written.
            return self._unmade(type(error).__name__)
        return read_reply(content, self._key)

    def _unconnected(self, error: openai.APIConnectionError) -> Failure:
        cause = error.__cause__
        what = f"{type(cause).__name__}: {cause}" if cause else str(error)
        # Of the HTTP library, which the SDK has changed: ConnectError, ConnectTimeout.
        name = type(cause).__name__
        if name.startswith("Connect") or name in ("ProxyError", "UnsupportedProtocol"):
            what = f"{self._url} can't be reached ({what}); check --judge-base-url and the network"
            return self._failure(Kind.UNREACHED, what)
        if name == "LocalProtocolError":
            return self._unmade(name)
        return self._failure(Kind.CUT, what)

    def _unmade(self, error: str) -> Failure:
        """Return that nothing can be sent; not in the library's words, which hold a header."""
        return self._failure(
            Kind.HOPELESS,
            f"no request can be made ({error}); check the key, --judge-base-url, OPENAI_ORG_ID and "
            "OPENAI_PROJECT_ID",
        )

    def _refused(self, error: openai.APIStatusError) -> Failure:
        """Return what a status other than 200 and 404 means."""
        status, headers = error.status_code, error.response.headers
        if 300 <= status < 400:
            there = where_to(self._url, headers.get("location", ""))
            return self._failure(
                Kind.HOPELESS,
                f"{self._url} sends requests on to {there} (HTTP {status}), which is not followed: "
                "answers, pictures and the key would go there; if it is right, pass it as "
                "--judge-base-url",
            )
        body = error.body if isinstance(error.body, dict) else {}
        message = body.get("message")
        if not (message and isinstance(message, str)):
            message = error.response.text
        said = words(f"HTTP {status}: {message or 'without a word'}", self._key)
        if status in (401, 403):
            return Failure(Kind.HOPELESS, f"{self._url} does not accept the key ({said}); set "
                           "OPENAI_API_KEY, or --api-key-file, to one that may use "
                           f"{self._config.judge_model}")  # fmt: skip
        if status == 402 or (status == 429 and error.code == "insufficient_quota"):
            return Failure(Kind.HOPELESS, f"the account at {self._url} has no credit left ({said})")
        if status in (408, 429) or status >= 500:
            kind = Kind.SERVER if status >= 500 else Kind.BUSY
            return Failure(kind, said, wait_of(headers))
        return Failure(Kind.REJECTED, said)

    async def _no_model(self) -> Failure:
        """Return a sentence with models of a like name, if the endpoint lists what it has."""
        model = self._config.judge_model
        try:
            call = self._client.models.with_raw_response.list()
            listed = await asyncio.wait_for(call, self._config.timeout_s)
            found = _names(json.loads(listed.content))
        except (self._sdk.OpenAIError, asyncio.TimeoutError, ValueError, RecursionError):
            found = []
        if model in found:
            hint = "it lists that model, so check --judge-base-url"
        else:
            hint = nearest(model, found).split("known are")[0].strip() if found else ""
        return self._failure(
            Kind.HOPELESS,
            f"{self._url} has no model {model!r} (HTTP 404): {hint or 'check the name and the URL'}"
            "; pass another --judge-model",
        )

    def _failure(self, kind: Kind, text: str) -> Failure:
        return Failure(kind, words(text, self._key))


def _names(listed: Any) -> list[str]:
    """Return the names of models that an endpoint lists, as far as they are names."""
    models = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(models, list):
        return []
    names = [one.get("id") for one in models[:MOST_MODELS] if isinstance(one, dict)]
    return [name for name in names if isinstance(name, str) and len(name) <= LONGEST_NAME]
