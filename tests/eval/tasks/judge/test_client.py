"""The key, and one request: what each status means, how long to wait, and that nothing retries."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.tasks.judge.client import Failure, Judge, Key, Kind, Reply, read_key, wait_of
from eval.tasks.judge.config import JudgeConfig
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
    assert {kind for kind in Kind if not kind.free} == {Kind.TIMEOUT, Kind.CUT, Kind.GARBLED}


def test_a_reply_has_its_text_and_tokens() -> None:
    with serve(Stub(answer=lambda text: f"for {SECRET}")) as stub:
        found = ask(stub)

    assert found == Reply("for [key]", None, "stop", MODEL, 700, 60)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'"text"', b'{"choices": []}', b'{"choices": [{"message": "text"}]}',
     b'{"choices": [{"message": {"content": 7}}]}', b'{"error": "none"}', b"<html>", b"[" * 90_000,
     b'{"choices": [{"message": {"content": "x"}}], "usage": 3}'],
)  # fmt: skip
def test_any_other_body_is_garbled(body: bytes) -> None:
    judge = Judge(JudgeConfig(MODEL, judge_base_url="http://h/v1"), Key(SECRET))

    found = judge._read(body.decode())

    assert isinstance(found, Failure)
    assert found.kind is Kind.GARBLED


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], expected: float | None) -> None:
    assert wait_of(headers) == expected


def test_a_date_to_wait_for() -> None:
    found = wait_of({"retry-after": formatdate(time() + 100, usegmt=True)})

    assert found is not None
    assert 90 < found <= 100


def test_the_key_is_the_variable_s_or_the_file_s(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")

    assert read_key(None, {"OPENAI_API_KEY": f" {SECRET} "}).reveal() == SECRET
    assert read_key(tmp_path / "key", {"OPENAI_API_KEY": "other"}).reveal() == SECRET


def test_a_key_does_not_show_itself() -> None:
    key = Key(SECRET)

    assert SECRET not in f"{key} {key!r} {[key]}"
    assert key.hide(f"wrong key {SECRET}, {SECRET}!") == "wrong key [key], [key]!"


def test_a_word_for_a_server_without_keys_is_left_in_replies() -> None:
    assert Key("none").hide("none of them") == "none of them"


def test_no_key_says_where_to_put_it() -> None:
    with pytest.raises(EvaluationError, match="set the environment variable OPENAI_API_KEY"):
        read_key(None, {})


def test_a_key_in_the_place_of_the_file_is_not_shown() -> None:
    with pytest.raises(EvaluationError, match="takes the name of a file") as caught:
        read_key(Path(SECRET), {})

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "content", [b"", b"two words", b"a\nb", "schl\u00fcssel".encode(), b"\xff"]
)
def test_what_can_t_be_a_key_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)

    with pytest.raises(EvaluationError, match="holds no key") as caught:
        read_key(tmp_path / "key", {})

    assert "words" not in str(caught.value)
