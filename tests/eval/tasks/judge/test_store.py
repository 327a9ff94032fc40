"""judgements.jsonl: its lines keep their form, and what old runs have paid for is not lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.run.folder import RunFolder
from eval.tasks.judge.client import Failure, Key, Kind, Reply
from eval.tasks.judge.cost import Tokens
from eval.tasks.judge.inputs import Picture
from eval.tasks.judge.requests import Request
from eval.tasks.judge.store import JUDGEMENTS, Judgements, answered_in

KEY = Key("sk-0123456789abcdef")
PICTURE = Picture(Path("val2014/7.jpg"), "5a", 40, 30)
REPLY = Reply("Accuracy: 8 7", None, "stop", "m", 700, 60)
# As version 0.1 wrote them.
SENT = {
    "event": "sent", "request": 1, "key": "k", "image_id": 7, "order": "12", "text": "Grade.",
    "picture": {"file": "7.jpg", "sha256": "5a", "width": 40, "height": 30}, "most_usd": 0.5,
}  # fmt: skip
HEAD = {"event": "reply", "request": 1, "key": "k", "image_id": 7, "order": "12"}
ANSWERED = {
    **HEAD, "outcome": "answered", "cost_usd": 0.25, "text": "Accuracy: 8 7", "reason": None,
    "finish_reason": "stop", "model": "m", "prompt_tokens": 700, "reply_tokens": 60,
}  # fmt: skip


def request(key: str = "k", text: str = "Grade.") -> Request:
    return Request(key, 7, "12", text, PICTURE, Tokens(1, 1, 1, 1), 0.5)


def folder(root: Path, name: str = "new") -> RunFolder:
    return RunFolder(root, name, {})


def write(root: Path, *rows: dict[str, Any], end: str = "") -> Path:
    path = folder(root, "old").path / JUDGEMENTS
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps({**row, "at": "now"}) + "\n" for row in rows) + end)
    return path


def lines(run: RunFolder) -> list[dict[str, Any]]:
    rows = map(json.loads, (run.path / JUDGEMENTS).read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "at"} for row in rows]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (REPLY, ANSWERED),
        (
            Reply("", "No.", "stop", "m", None, None),
            {**ANSWERED, "outcome": "refused", "reason": "No.", "text": "", "prompt_tokens": None,
             "reply_tokens": None},
        ),
        (
            Reply("Accuracy: 8 7", None, "content_filter", "m", 700, 60),
            {**ANSWERED, "outcome": "refused", "finish_reason": "content_filter",
             "reason": "stopped by the endpoint's content filter"},
        ),
        (Failure(Kind.BUSY, "429"), {**HEAD, "outcome": "rate limit", "cost_usd": 0.25,
                                     "reason": "429"}),
        (Failure(Kind.REJECTED, "400"), {**HEAD, "outcome": "rejected", "cost_usd": 0.25,
                                         "reason": "400"}),
    ],
    ids=["answered", "refused", "filtered", "busy", "rejected"],
)  # fmt: skip
def test_a_request_and_its_reply_are_two_lines(
    tmp_path: Path, reply: Reply | Failure, expected: dict[str, Any]
) -> None:
    with folder(tmp_path) as run:
        judgements = Judgements(run, KEY)
        judgements.received(judgements.sent(request(), 0.5), reply, 0.25)

        assert lines(run) == [SENT, expected]


def test_a_later_start_knows_what_was_spent_and_what_was_lost(tmp_path: Path) -> None:
    write(tmp_path, SENT, ANSWERED, {**SENT, "request": 2, "key": "l"})

    with folder(tmp_path, "old") as run:
        judgements = Judgements(run, KEY)

        assert (judgements.requests, judgements.spent) == (2, 0.75)
        assert [one.key for one in judgements.lost] == ["l"]
        assert [one.key for one in judgements.left([request("k"), request("l")])] == ["l"]
        assert judgements.sent(request("l"), 0.5) == 3


def test_answers_of_another_run_are_taken_over_for_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, SENT, ANSWERED, {**ANSWERED, "key": "l", "outcome": "refused"})
    name = path.parent.name

    found = answered_in(tmp_path, {"k", "l"}, own="new")
    with folder(tmp_path) as run:
        judgements = Judgements(run, KEY)
        judgements.borrow(found)

        borrowed = {**ANSWERED, "request": None, "cost_usd": 0.0, "borrowed_from": name}
        assert lines(run) == [borrowed]
    # Through one more run, the payer is still named, and a refusal is final in its own run only.
    again = answered_in(tmp_path, {"k"}, own="newest")
    assert {one.borrowed_from for one in again.values()} == {name}
    assert answered_in(tmp_path, {"l"}, own=name).keys() == {"l"}
    assert not answered_in(tmp_path, {"l"}, own=name, ask_again=True)


def test_a_line_that_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, SENT, ANSWERED, end='{"event": "se')
    before = path.read_bytes()

    assert answered_in(tmp_path, {"k"}, own="new").keys() == {"k"}
    assert path.read_bytes() == before


def test_the_key_and_half_characters_are_not_written(tmp_path: Path) -> None:
    with folder(tmp_path) as run:
        judgements = Judgements(run, KEY)
        reply = Reply(f"\ud800 {KEY.reveal()}", None, "stop", KEY.reveal(), 1, 1)
        judgements.received(judgements.sent(request(text=KEY.reveal()), 0.5), reply, 0.0)

        assert [row["text"] for row in lines(run)] == ["[key]", "? [key]"]
        assert judgements.final["k"].text == "? [key]"
        assert judgements.final["k"].model == "[key]"


@pytest.mark.parametrize("row", [{"event": "sent"}, {"event": "reply", "key": "k"}, {}])
def test_a_line_that_is_no_event_is_one_sentence(tmp_path: Path, row: dict[str, Any]) -> None:
    write(tmp_path, row)

    with folder(tmp_path, "old") as run, pytest.raises(EvaluationError) as caught:
        Judgements(run, KEY)

    assert "holds a line that is no request and no reply" in str(caught.value)
