"""One request: what each status means, how long to wait, and that nothing retries."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from time import time
from typing import Any

import pytest

from eval.tasks.judge.client import Judge
from eval.tasks.judge.config import JudgeConfig
from eval.tasks.judge.keys import Key
from eval.tasks.judge.replies import Failure, Kind, Reply, wait_of
from tests.eval.judge_stub import MODEL, SECRET, Stub, serve


def ask(stub: Stub, model: str = MODEL, text: str = "x") -> Reply | Failure:
    config = JudgeConfig(model, judge_base_url=stub.url, timeout_s=600.0)
    content = [{"type": "text", "text": text}]
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}]}

    async def once() -> Reply | Failure:
        judge = Judge(config, Key(SECRET))
        try:
            return await judge.ask(body)
        finally:
            await judge.close()

    return asyncio.run(once())


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("busy", Kind.BUSY), ("error", Kind.SERVER), ("cut", Kind.CUT), ("garbled", Kind.GARBLED),
     ("rejected", Kind.REJECTED)],
)  # fmt: skip
def test_a_fault_is_one_request_and_its_kind(fault: str, kind: Kind) -> None:
    with serve(Stub(fault=lambda text, attempt: fault)) as stub:
        found = ask(stub)

    assert isinstance(found, Failure)
    assert found.kind is kind
    assert SECRET not in found.reason
    assert len(stub.calls) == 1
    assert found.wait_s == (0.05 if fault == "busy" else None)


def test_kinds_that_cost_nothing() -> None:
    assert {kind for kind in Kind if not kind.free} == {
        Kind.TIMEOUT, Kind.CUT, Kind.GARBLED, Kind.PAGE,
    }  # fmt: skip


def test_a_reply_has_its_text_and_tokens() -> None:
    with serve(Stub(answer=lambda text: f"for {SECRET}")) as stub:
        found = ask(stub)

    assert found == Reply("for [key]", None, "stop", MODEL, 700, 60)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1e400"}, float("inf")),
        ({"retry-after": "-1e400"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "nan", "retry-after": "7"}, None),
        ({"retry-after": "9" * 5000}, float("inf")),
        ({"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 0001 00:00:00 +2359"}, 0.0),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], expected: float | None) -> None:
    assert wait_of(headers) == expected


def test_a_date_to_wait_for() -> None:
    found = wait_of({"retry-after": formatdate(time() + 100, usegmt=True)})

    assert found is not None
    assert 90 < found <= 100
