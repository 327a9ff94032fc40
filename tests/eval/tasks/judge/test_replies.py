"""What a server sends: any bytes are a reply or a failure, and what is stored reads back equal."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eval.tasks.judge.config import ImageTokens, JudgeConfig, Price
from eval.tasks.judge.cost import cost_of
from eval.tasks.judge.keys import SHORTEST, Key
from eval.tasks.judge.protocols import PROTOCOLS, read_grades
from eval.tasks.judge.records import Sent, event_of, read_events
from eval.tasks.judge.replies import (
    FAR,
    LONGEST_BODY,
    LONGEST_NAME,
    LONGEST_REASON,
    LONGEST_TEXT,
    MOST_TOKENS,
    Failure,
    Kind,
    Reply,
    read_reply,
    words,
)
from eval.tasks.judge.requests import Outcome, Request
from eval.tasks.judge.store import Judgements
from tests.eval.judge_stub import SECRET
from tests.eval.tasks.judge.test_store import PICTURE, Tokens, folder

KEY = Key(SECRET)
GRADES = "Accuracy: 8 7\n\nDetailedness: 8 7"


def body(**changes: Any) -> bytes:
    """Return a completion with some values replaced; those of a message and choice by name."""
    message = {"content": GRADES, **changes.pop("message", {})}
    choice = {"message": message, "finish_reason": "stop", **changes.pop("choice", {})}
    usage = {"prompt_tokens": 700, "completion_tokens": 60}
    return json.dumps({"choices": [choice], "model": "m", "usage": usage, **changes}).encode()


def pieces(text: str) -> set[str]:
    return {text[at : at + SHORTEST] for at in range(len(text) - SHORTEST + 1)}


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b'"text"', b'{"choices": []}', b'{"choices": [{"message": "text"}]}',
     b'{"choices": [{"message": {"content": 7}}]}', b'{"error": "none"}', b"[" * 90_000,
     b'{"choices": {"0": 1}}', b'{"choices": [{"message": {"content": {"text": "x"}}}]}',
     b'{"choices": [{"message": {"content": ["x"]}}]}', b"\xff\xfe{", b"\x1f\x8b\x08 not gzip",
     b'data: {"choices": []}\n\n', b'{"choices": [], "choices": [{"message": {"content": "x"}}]}',
     b'{"choices": [{"message": {"content": [{"type": "image", "text": "x"}]}}]}', b"9" * 9000],
)  # fmt: skip
def test_any_other_body_is_garbled(content: bytes) -> None:
    found = read_reply(content, KEY)

    assert isinstance(found, Failure)
    assert found.kind is Kind.GARBLED
    assert len(found.reason) <= LONGEST_REASON


@pytest.mark.parametrize("content", [b"<html>", b" \n<!DOCTYPE html><title>Login</title>"])
def test_a_web_page_is_told_from_a_garbled_reply(content: bytes) -> None:
    found = read_reply(content, KEY)

    assert isinstance(found, Failure)
    assert found.kind is Kind.PAGE
    assert "check --judge-base-url" in found.reason


@pytest.mark.parametrize(
    "odd", [{}, [], 5, True, {"a": [1]}, 1e400, "x" * 10_000, "\ud800", "\x1b[2J", None]
)
def test_what_stands_beside_the_text_bricks_no_reply(odd: Any) -> None:
    """A reply that is paid for is kept, whatever else is in it."""
    for content in (body(model=odd), body(choice={"finish_reason": odd}), body(usage=odd),
                    body(usage={"prompt_tokens": odd, "completion_tokens": odd})):  # fmt: skip
        found = read_reply(content, KEY)

        assert isinstance(found, Reply)
        assert found.text == GRADES
        for name in (found.model, found.finish_reason):
            assert name is None or (name.isprintable() and len(name) <= LONGEST_NAME)


@pytest.mark.parametrize(
    ("count", "expected"),
    [("700", 700), ("700.0", 700), ("0", 0), ("-1", None), ("1.5", None), ("NaN", None),
     ("1e400", None), ("-Infinity", None), ("9" * 400, None), ("9" * 6000, None), ("true", None),
     ('"700"', None), ("[700]", None), (str(MOST_TOKENS), MOST_TOKENS),
     (str(MOST_TOKENS + 1), None)],
)  # fmt: skip
def test_numbers_of_tokens_are_whole_and_believable(count: str, expected: int | None) -> None:
    content = b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": %s}}'

    found = read_reply(content % count.encode(), KEY)

    assert isinstance(found, Reply)
    assert found.prompt_tokens == expected
    assert found.reply_tokens is None


def test_a_text_in_parts_is_one_text() -> None:
    parts = [{"type": "text", "text": "Accuracy: 8 7\n"}, {"type": "text", "text": "so"}]

    found = read_reply(body(message={"content": parts}), KEY)

    assert isinstance(found, Reply)
    assert found.text == "Accuracy: 8 7\nso"


def test_megabytes_of_text_are_cut_and_the_key_is_hidden_before() -> None:
    text = "x" * (LONGEST_TEXT - 20) + SECRET + "y" * LONGEST_TEXT

    found = read_reply(body(message={"content": text}), KEY)

    assert isinstance(found, Reply)
    assert found.text == "x" * (LONGEST_TEXT - 20) + "[key]" + "y" * 15


@pytest.mark.parametrize("before", [0, 50, 55, 60, 70, 79])
def test_a_cut_leaves_no_piece_of_the_key(before: int) -> None:
    """As `text[:80]` once did, which left 26 of 35 characters."""
    for content in ("x" * before + SECRET, "x" * before + json.dumps({"no": SECRET})):
        garbled = read_reply(content.encode(), KEY)

        assert isinstance(garbled, Failure)
        assert not pieces(SECRET) & pieces(garbled.reason)
        assert not pieces(SECRET) & pieces(words(f"{'x' * 4 * before}{content}", KEY))


def test_the_end_of_what_is_looked_at_leaves_no_piece_either() -> None:
    for at in range(2 * LONGEST_REASON + FAR - len(SECRET), 2 * LONGEST_REASON + FAR + 2, 5):
        # The key over and over, so that what is far behind comes near.
        text = (SECRET * (at // len(SECRET) + 2))[-at - len(SECRET) :]

        assert not pieces(SECRET) & pieces(words(text, KEY))


def test_an_endpoint_s_words_are_one_line_that_a_terminal_can_show() -> None:
    assert words("a\nb\x1b[31m\x00\u202ec", KEY) == "a b?[31m??c"
    assert len(words("x" * 10**6, KEY)) == LONGEST_REASON


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from([SECRET, SECRET[:12], "\ud800", "length", "content_filter"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
NAMES = ("choices", "message", "content", "refusal", "finish_reason", "model", "usage",
         "prompt_tokens", "completion_tokens", "type", "text")  # fmt: skip


@st.composite
def completions(draw: st.DrawFn) -> Any:
    """A completion in which values are replaced or left out, and all else by chance."""
    message = draw(st.fixed_dictionaries({}, optional={name: json_values for name in NAMES}))
    choice = {**draw(st.fixed_dictionaries({}, optional={n: json_values for n in NAMES})),
              "message": message}  # fmt: skip
    rest = draw(st.fixed_dictionaries({}, optional={name: json_values for name in NAMES}))
    usage = draw(st.fixed_dictionaries({}, optional={name: json_values for name in NAMES}))
    return {**rest, "usage": usage, "choices": [choice]}


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode())
       | completions().map(lambda value: json.dumps(value).encode()))  # fmt: skip
@example(b'{"choices": [{"message": {"content": "\\ud800"}}], "model": {}}')
@example(b'{"choices": [{"message": {"content": "x"}, "finish_reason": 5}]}')
@example(b'{"choices": [{"message": {"content": null, "refusal": []}}]}')
@example(b'{"choices": [{"message": {"content": "x", "refusal": "\\ud83d\\n"}}]}')
@example(b'{"choices": [{"message": {"content": [{"type": [], "text": ""}]}}]}')
def test_any_body_is_a_reply_or_a_failure_and_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    found = read_reply(content, KEY)

    assert isinstance(found, (Reply, Failure))
    assert not pieces(SECRET) & pieces(repr(found))
    with folder(tmp_path_factory.mktemp("run")) as run:
        judgements = Judgements(run, KEY)
        request = Request("k", 7, "12", "Grade.", PICTURE, Tokens(1, 1, 1, 1), 0.5)
        judgements.record_reply(judgements.record_request(request, 0.5), found, 0.25)
        again = Judgements(run, KEY)
        assert again.outcomes == judgements.outcomes
        assert again.final == judgements.final
        assert again.spent == judgements.spent == 0.25
        (_, outcome) = read_events(run.path / "judgements.jsonl")
        assert isinstance(outcome, Outcome)
        if isinstance(found, Reply):
            assert (outcome.text, outcome.model, outcome.finish_reason) == (
                found.text, found.model, found.finish_reason,
            )  # fmt: skip


def test_the_most_that_an_endpoint_can_say_costs_a_number() -> None:
    price = Price(10.0**6, 10.0**6, ImageTokens(1, 10.0**6))
    config = JudgeConfig("m", prices={"m": price})

    cost = cost_of(config, MOST_TOKENS, MOST_TOKENS)

    record = {"event": "sent", "request": 1, "key": "k", "image_id": 1, "order": "12"}
    assert event_of({**record, "most_usd": cost}) == Sent(1, "k", 1, "12", cost)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "text",
    ["```json" + "\n" * 200_000, "```\n" + "\n```" * 50_000 + "x", "accuracy" + " " * 200_000 + "(",
     "accuracy " * 30_000, "accuracy: 8 7, " * 20_000, "[" * 200_000, "accuracy:" + "- " * 100_000,
     "accuracy:" + "assistant 1" * 20_000],
)  # fmt: skip
def test_grades_of_a_hostile_reply_are_read_in_little_time(protocol: str, text: str) -> None:
    start = time.process_time()

    read_grades(text, protocol)

    assert time.process_time() - start < 5


def test_a_body_is_bounded_by_what_a_text_can_take() -> None:
    text = "\x00" * LONGEST_TEXT  # six characters each in JSON

    assert len(body(message={"content": text})) < LONGEST_BODY
