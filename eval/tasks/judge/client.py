"""The judge's endpoint: send one request with the official SDK.

The SDK is imported when the first request is sent. Its retries are off, so that every request is
counted. Redirects are off, so that answers and pictures are not sent elsewhere. The size of a reply
is limited before the SDK reads it.
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
from eval.tasks.judge.urls import describe_redirect

if TYPE_CHECKING:
    import openai

# Headers of a reply that are read.
KEPT_HEADERS: Final = ("retry-after", "retry-after-ms", "location")
# Number of model names that are searched for a similar one.
MOST_MODELS: Final = 2000


def _client_class(sdk: Any) -> Any:
    """Return the SDK's HTTP client class with limited replies and without redirects.

    The HTTP library takes proxies and certificates from the environment.
    """

    class Bounded(sdk.DefaultAsyncHttpxClient):  # type: ignore[misc]  # known when it is imported
        def __init__(self) -> None:
            # A few compressed bytes may expand to gigabytes.
            super().__init__(follow_redirects=False, headers={"Accept-Encoding": "identity"})

        async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
            """Return a response after reading its whole body, up to the largest allowed size."""
            response = await super().send(request, stream=True, **options)
            body = bytearray()
            try:
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > LONGEST_BODY:
                        break
            finally:
                await response.aclose()
            content = _decompress(bytes(body), response.headers.get("content-encoding", ""))
            # Other headers are dropped: one could name an encoding that is expensive to decode.
            headers = {name: response.headers[name] for name in KEPT_HEADERS
                       if name in response.headers}  # fmt: skip
            headers["content-type"] = "application/json"
            return type(response)(
                response.status_code, headers=headers, content=content, request=request
            )

    return Bounded


def _decompress(body: bytes, encoding: str) -> bytes:
    """Return the content of a body that a server compressed anyway, up to the largest size."""
    if encoding.strip().lower() not in ("gzip", "deflate"):
        return body
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, LONGEST_BODY + 1)
    except zlib.error:
        return body  # which is then rejected as a chat completion


class Judge:
    """The endpoint; close it when done."""

    def __init__(self, config: JudgeConfig, key: Key) -> None:
        """Import the SDK and prepare the client; nothing is sent yet.

        Raises:
            EvaluationError: If the SDK is not installed, or no connection can be set up.
        """
        try:
            import openai
        except ModuleNotFoundError as error:
            raise EvaluationError(
                "the judge needs the openai package, which is not installed: pip install "
                "'openai>=2' (or install the extra: pip install '.[judge]')"
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
            # The library's message is not shown: it may contain a proxy's password.
            raise EvaluationError(
                f"no connection can be set up ({type(error).__name__}); check the proxies in "
                "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, the certificates in SSL_CERT_FILE and "
                "SSL_CERT_DIR, and variables that start with OPENAI_"
            ) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(self, body: dict[str, Any]) -> Reply | Failure:
        """Send one request; `body` has the arguments of the chat-completions call."""
        try:
            call = self._client.chat.completions.with_raw_response.create(**body)
            # The SDK's timeout applies to each step; a server could send single bytes forever.
            answer = await asyncio.wait_for(call, self._config.timeout_s)
            content = answer.content
        except (asyncio.TimeoutError, self._sdk.APITimeoutError):
            return Failure(Kind.TIMEOUT, f"no reply within {self._config.timeout_s:g} s")
        except self._sdk.APIConnectionError as error:
            return self._connection_failure(error)
        except self._sdk.APIStatusError as error:
            return (
                await self._unknown_model()
                if error.status_code == 404
                else self._status_failure(error)
            )
        except (self._sdk.OpenAIError, RecursionError) as error:
            return self._failure(Kind.GARBLED, str(error))
        except ValueError as error:  # A header can't be encoded.
            return self._invalid_request(type(error).__name__)
        return read_reply(content, self._key)

    def _connection_failure(self, error: openai.APIConnectionError) -> Failure:
        cause = error.__cause__
        what = f"{type(cause).__name__}: {cause}" if cause else str(error)
        # The SDK may use its own HTTP library, so errors are recognised by their names.
        name = type(cause).__name__
        if name.startswith("Connect") or name in ("ProxyError", "UnsupportedProtocol"):
            what = f"{self._url} can't be reached ({what}); check --judge-base-url and the network"
            return self._failure(Kind.UNREACHED, what)
        if name == "LocalProtocolError":
            return self._invalid_request(name)
        return self._failure(Kind.CUT, what)

    def _invalid_request(self, error: str) -> Failure:
        """Return the failure to build a request; the library's message may contain a header."""
        return self._failure(
            Kind.HOPELESS,
            f"no request can be made ({error}); check the key, --judge-base-url, OPENAI_ORG_ID and "
            "OPENAI_PROJECT_ID",
        )

    def _status_failure(self, error: openai.APIStatusError) -> Failure:
        """Return the failure for an HTTP status other than 200 and 404."""
        status, headers = error.status_code, error.response.headers
        if 300 <= status < 400:
            there = describe_redirect(self._url, headers.get("location", ""))
            return self._failure(
                Kind.HOPELESS,
                f"{self._url} redirects to {there} (HTTP {status}); redirects are not followed, "
                "since answers, pictures and the key would be sent there: if the address is right, "
                "pass it as --judge-base-url",
            )
        body = error.body if isinstance(error.body, dict) else {}
        message = body.get("message")
        if not (message and isinstance(message, str)):
            message = error.response.text
        said = words(f"HTTP {status}: {message or 'no message'}", self._key)
        if status in (401, 403):
            return Failure(Kind.HOPELESS, f"{self._url} does not accept the key ({said}); set "
                           "OPENAI_API_KEY, or --api-key-file, to a key that may use "
                           f"{self._config.judge_model}")  # fmt: skip
        if status == 402 or (status == 429 and error.code == "insufficient_quota"):
            return Failure(Kind.HOPELESS, f"the account at {self._url} has no credit left ({said})")
        if status in (408, 429) or status >= 500:
            kind = Kind.SERVER if status >= 500 else Kind.BUSY
            return Failure(kind, said, wait_of(headers))
        return Failure(Kind.REJECTED, said)

    async def _unknown_model(self) -> Failure:
        """Return the failure for an unknown model, with similar names if the endpoint lists any."""
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
    """Return the valid names of models that an endpoint lists."""
    models = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(models, list):
        return []
    names = [one.get("id") for one in models[:MOST_MODELS] if isinstance(one, dict)]
    return [name for name in names if isinstance(name, str) and len(name) <= LONGEST_NAME]
