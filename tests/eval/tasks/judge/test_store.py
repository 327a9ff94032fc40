"""judgements.jsonl: its lines keep their form, and what old runs have paid for is not lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.errors import EvaluationError
from eval.run.folder import RunFolder
from eval.tasks.judge import records
from eval.tasks.judge.cost import Tokens
from eval.tasks.judge.inputs import Picture
from eval.tasks.judge.keys import Key
from eval.tasks.judge.replies import Failure, Kind, Reply
from eval.tasks.judge.requests import Outcome, Request
from eval.tasks.judge.store import JUDGEMENTS, Judgements, find_paid_answers

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
        judgements.record_reply(judgements.record_request(request(), 0.5), reply, 0.25)

        assert lines(run) == [SENT, expected]


def test_a_later_start_knows_what_was_spent_and_what_was_lost(tmp_path: Path) -> None:
    write(tmp_path, SENT, ANSWERED, {**SENT, "request": 2, "key": "l"})

    with folder(tmp_path, "old") as run:
        judgements = Judgements(run, KEY)

        assert (judgements.requests, judgements.spent) == (2, 0.75)
        assert [one.key for one in judgements.lost] == ["l"]
        assert [one.key for one in judgements.open_requests([request("k"), request("l")])] == ["l"]
        assert judgements.record_request(request("l"), 0.5) == 3


def test_answers_of_another_run_are_taken_over_for_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, SENT, ANSWERED, {**ANSWERED, "key": "l", "outcome": "refused"})
    name = path.parent.name

    found = find_paid_answers(tmp_path, {"k", "l"}, own="new")
    with folder(tmp_path) as run:
        judgements = Judgements(run, KEY)
        judgements.borrow(found)

        borrowed = {**ANSWERED, "request": None, "cost_usd": 0.0, "borrowed_from": name}
        assert lines(run) == [borrowed]
    # Through one more run, the payer is still named, and a refusal is final in its own run only.
    again = find_paid_answers(tmp_path, {"k"}, own="newest")
    assert {one.borrowed_from for one in again.values()} == {name}
    assert find_paid_answers(tmp_path, {"l"}, own=name).keys() == {"l"}
    assert not find_paid_answers(tmp_path, {"l"}, own=name, ask_again=True)


def test_a_line_that_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, SENT, ANSWERED, end='{"event": "se')
    before = path.read_bytes()

    assert find_paid_answers(tmp_path, {"k"}, own="new").keys() == {"k"}
    assert path.read_bytes() == before


def test_the_key_and_half_characters_are_not_written(tmp_path: Path) -> None:
    with folder(tmp_path) as run:
        judgements = Judgements(run, KEY)
        reply = Reply(f"\ud800 {KEY.reveal()}", None, "stop", KEY.reveal(), 1, 1)
        judgements.record_reply(
            judgements.record_request(request(text=KEY.reveal()), 0.5), reply, 0.0
        )

        assert [row["text"] for row in lines(run)] == ["[key]", "? [key]"]
        assert judgements.final["k"].text == "? [key]"
        assert judgements.final["k"].model == "[key]"


HUGE = int("9" * 400)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"event": "sent"}', "missing 5 required positional arguments: 'request'"),
        ('{"event": "reply", "key": "k"}', "missing"),
        ("{}", "its event is None, neither"),
        ('{"event": ["sent"]}', "its event is ['sent'], neither"),
        ("[1]", "it is not a JSON object"),
        ("7", "it is not a JSON object"),
        ("not JSON", "Expecting value"),
        ('{"event": "reply", "event": "sent"}', "key 'event' is duplicated"),
        ("[" * 90_000, "nested too deep"),
        (b"\xff\xfe1\x00", "it is not UTF-8"),
        (b'{"event": "\xe4"}', "it is not UTF-8"),
        ({**SENT, "most_usd": "x"}, "most_usd is 'x', but it must be a number of at least 0"),
        ({**SENT, "most_usd": -1}, "most_usd is -1"),
        ({**SENT, "most_usd": float("nan")}, "most_usd is nan"),
        ({**SENT, "most_usd": None}, "most_usd is None"),
        ({**SENT, "most_usd": HUGE}, "most_usd is 999"),
        ({**SENT, "request": True}, "request is True, but it must be a whole number of at least 1"),
        ({**SENT, "request": None}, "its request has no number"),
        ({**SENT, "request": 0}, "request is 0"),
        ({**SENT, "request": "1"}, "request is '1'"),
        ({**SENT, "request": [1]}, "request is [1]"),
        ({**SENT, "key": []}, "key is []"),
        ({**SENT, "image_id": {}}, "image_id is {}"),
        ({**SENT, "order": 12}, "order is 12"),
        ({**ANSWERED, "cost_usd": float("inf")}, "cost_usd is inf"),
        ({**ANSWERED, "cost_usd": False}, "cost_usd is False"),
        ({**ANSWERED, "text": ["x"]}, "text is ['x']"),
        ({**ANSWERED, "reason": 0}, "reason is 0"),
        ({**ANSWERED, "outcome": None}, "outcome is None"),
        ({**ANSWERED, "borrowed_from": 7}, "borrowed_from is 7"),
        ({**ANSWERED, "at": 7}, "at is 7"),
    ],
)
def test_a_damaged_line_of_the_own_file_is_one_sentence_and_of_another_is_left_out(
    tmp_path: Path, line: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, SENT, ANSWERED)
    raw = json.dumps({"at": "now", **line}) if isinstance(line, dict) else line
    written = raw.encode() if isinstance(raw, str) else raw
    path.write_bytes(path.read_bytes() + b"\n" + written + b"\n" + b'{"event": "se')

    with folder(tmp_path, "old") as run, pytest.raises(EvaluationError) as own:
        Judgements(run, KEY)
    with pytest.raises(EvaluationError) as again:
        find_paid_answers(tmp_path, {"k"}, own=path.parent.name)
    found = find_paid_answers(tmp_path, {"k"}, own="new")

    said = str(own.value)
    assert said == str(again.value)
    assert f"{path} is damaged, line 4: " in said
    assert reason in said
    assert "nothing was sent" in said
    assert "\n" not in said
    assert len(said) - len(str(path)) < 400
    assert found["k"].text == "Accuracy: 8 7"
    note = capsys.readouterr().err
    assert note.count("\n") == 1
    skipped = "damaged lines of other runs are skipped, so their answers may be paid for again"
    assert f"{skipped}: {path} (line 4: " in note


def test_files_that_are_none_are_named_in_one_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, SENT, ANSWERED)
    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / JUDGEMENTS).mkdir()
    os.mkfifo(tmp_path / "b" / JUDGEMENTS)
    (tmp_path / "c" / JUDGEMENTS).symlink_to(JUDGEMENTS)
    (tmp_path / "d" / JUDGEMENTS).symlink_to("/dev/zero")
    (tmp_path / "e" / JUDGEMENTS).symlink_to("absent")
    (tmp_path / "a file").write_text("")
    (tmp_path / "loop").symlink_to("loop")

    found = find_paid_answers(tmp_path, {"k"}, own="new")

    assert found.keys() == {"k"}
    (note,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'a' / JUDGEMENTS} (it is not a regular file)" in note
    assert f"{tmp_path / 'b' / JUDGEMENTS} (it is not a regular file)" in note
    assert "Too many levels of symbolic links" in note
    assert "more files" in note


def test_a_line_without_an_end_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LONGEST_LINE", 1000)
    path = write(tmp_path, SENT, ANSWERED, {**ANSWERED, "text": "x" * 2000}, SENT)

    events = list(records.read_events(path))

    assert events[2:] == [records.Damaged(3, "it is longer than 1,000 bytes")]


def test_pieces_of_the_key_that_an_earlier_version_stored_are_not_shown(tmp_path: Path) -> None:
    garbled = {**HEAD, "outcome": "garbled", "cost_usd": 0.0, "reason": KEY.reveal()[:12]}
    write(tmp_path, SENT, garbled, {**ANSWERED, "text": f"x {KEY.reveal()[3:15]}"})

    with folder(tmp_path, "old") as run:
        outcomes = Judgements(run, KEY).outcomes

    assert [(one.reason, one.text) for one in outcomes] == [("[key]", None), (None, "x [key]")]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([SENT, ANSWERED]).flatmap(
        lambda row: st.fixed_dictionaries({}, optional={name: json_values for name in row}).map(
            lambda changes: json.dumps({**row, **changes}).encode()
        )
    )
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=30)
)
def test_any_line_is_an_event_or_damaged(
    tmp_path_factory: pytest.TempPathFactory, line: bytes
) -> None:
    path = tmp_path_factory.mktemp("run") / JUDGEMENTS
    path.write_bytes(line + b"\n")

    for event in records.read_events(path):
        assert isinstance(event, (records.Sent, records.Damaged, Outcome))
        if isinstance(event, Outcome):
            assert 0 <= event.cost_usd < float("inf")
        if isinstance(event, records.Damaged):
            assert event.where.isprintable()


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", {}), ("finish_reason", 5), ("prompt_tokens", 1.5), ("prompt_tokens", HUGE),
     ("reply_tokens", -1), ("reply_tokens", True)],
)  # fmt: skip
def test_odd_values_beside_a_reply_that_was_paid_for_are_taken_for_unsaid(
    tmp_path: Path, name: str, value: Any
) -> None:
    write(tmp_path, SENT, {**ANSWERED, "at": "now", name: value})

    with folder(tmp_path, "old") as run:
        (outcome,) = Judgements(run, KEY).outcomes
    assert outcome.text == ANSWERED["text"]
    assert getattr(outcome, name) is None
