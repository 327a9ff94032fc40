"""JSON lines: whole files, files that grow, and files that a kill or a full disk left behind."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.errors import EvaluationError
from eval.files.storage import (
    AppendedLines,
    dump_lines,
    read_json,
    read_json_lines,
    read_lines,
    write_json,
)

CUT = '{"a": 3, "text": "ü'.encode()[:-1]  # inside a character

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=5))
def test_any_records_come_back(records: list[dict[str, Any]]) -> None:
    lines = dump_lines(records).split("\n")

    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == records


def test_records_have_the_numbers_of_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('\n{"a": 1}\r\n  \n{"a": "b\u2028c"}')

    assert read_json_lines(path) == [(2, {"a": 1}), (4, {"a": "b\u2028c"})]
    assert read_lines(path)[0] == (2, '{"a": 1}')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"a": 1}\n{"a":\n',
            r"line 2 is not JSON \(Expecting value\); each line must be one object",
        ),
        (b'{"a": 1}\n{"a": 1, "a": 2}\n', "line 2 is not JSON .key 'a' is duplicated"),
        (b'{"a": 1}\n' + b"[" * 100_000, "line 2 is not JSON .nested too deep"),
        (b'{"a": 1}\n[1, 2]\n', r"line 2 is not a JSON object: \[1, 2\]"),
        (b'{"a": "\xff"}\n', "is not UTF-8 text; is it the right file"),
        (None, "can't be read: No such file"),
    ],
)
def test_what_is_no_json_lines_file_is_one_sentence(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(EvaluationError, match=message) as raised:
        read_json_lines(path)

    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": ', "is damaged, it is not complete JSON"),
        ("[1]", "is damaged, it is not a JSON object"),
        (None, "can't be read: No such file"),
    ],
)
def test_a_damaged_json_file_is_one_sentence(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(EvaluationError, match=message):
        read_json(path)


def test_a_json_file_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "new/x.json", {"a": "ü", "path": Path("b")})

    assert read_json(tmp_path / "new/x.json") == {"a": "ü", "path": "b"}


def test_a_line_that_was_cut_off_is_left_out_and_dropped_by_the_next_append(tmp_path: Path) -> None:
    lines = AppendedLines(tmp_path / "x.jsonl")
    lines.append([{"a": 1}, {"a": "ü\n"}])
    with lines.path.open("ab") as file:
        file.write(CUT)

    assert lines.read() == [{"a": 1}, {"a": "ü\n"}]
    lines.append([{"a": 4}])
    assert lines.read() == [{"a": 1}, {"a": "ü\n"}, {"a": 4}]
    assert lines.path.read_bytes() == '{"a": 1}\n{"a": "ü\\n"}\n{"a": 4}\n'.encode()


@pytest.mark.parametrize("before", [b"", CUT], ids=["empty", "only a cut line"])
def test_a_file_without_a_whole_line_is_taken_up(tmp_path: Path, before: bytes) -> None:
    lines = AppendedLines(tmp_path / "x.jsonl")
    lines.path.write_bytes(before)

    assert lines.read() == []
    lines.append([{"a": 1}])
    assert lines.path.read_bytes() == b'{"a": 1}\n'


def test_reading_changes_no_file(tmp_path: Path) -> None:
    """Another process may be in the middle of writing what looks cut off."""
    lines = AppendedLines(tmp_path / "x.jsonl")
    lines.append([{"a": 1}])
    with lines.path.open("ab") as file:
        file.write(CUT)
    before = lines.path.read_bytes()

    lines.read()

    assert lines.path.read_bytes() == before


def test_a_text_may_hold_any_character_that_ends_a_line(tmp_path: Path) -> None:
    records = [{"caption": "a\u2028b\x85c\x0bd\x1ee\r\nf"}, {"caption": ""}]
    lines = AppendedLines(tmp_path / "x.jsonl")
    lines.append(records)

    assert lines.read() == records


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    lines = AppendedLines(tmp_path / "x.jsonl")
    lines.path.write_text('{"a": 1}\n{"a":\n{"a": 2}\n')

    with pytest.raises(EvaluationError, match=r"x\.jsonl, line 2 is not JSON"):
        lines.read()


def test_each_process_appends_to_a_part_of_its_own(tmp_path: Path) -> None:
    common, *parts = [AppendedLines(tmp_path / "x.jsonl", n) for n in (None, 0, 2, 10)]
    for number, lines in enumerate(parts):
        lines.append([{"by": number}])
    (tmp_path / "x.copy.jsonl").write_text('{"by": "hand"}\n')
    common.append([{"by": "one"}])

    assert common.read_parts() == [[{"by": "one"}], [{"by": 0}], [{"by": 1}], [{"by": 2}]]
    assert parts[0].read() == common.read()

    whole = [{"by": 1}, {"by": "one"}, {"by": 0}]  # and not what part 10 holds
    parts[1].join(whole)

    names = {"x.jsonl", "x.copy.jsonl", "x.10.jsonl.kept"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert (tmp_path / "x.10.jsonl.kept").read_text() == '{"by": 2}\n'
    assert common.read() == whole


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Stand for a full disk: the system refuses to write beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_keeps_whole_lines(tmp_path: Path) -> None:
    lines = AppendedLines(tmp_path / "x.jsonl")
    lines.append([{"a": 1}])

    with (
        largest_file(100),
        pytest.raises(EvaluationError, match=r"x\.jsonl can't be written: File too large; what"),
    ):
        lines.append([{"a": "x" * 200}])

    assert lines.path.stat().st_size == 100
    assert lines.read() == [{"a": 1}]
    lines.append([{"a": 2}])
    assert lines.read() == [{"a": 1}, {"a": 2}]


def test_what_was_appended_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = AppendedLines(tmp_path / "x.jsonl")
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(lines.path.read_bytes()))

    lines.append([{"a": 1}])

    assert synced == [b'{"a": 1}\n']


def test_half_a_surrogate_pair_is_appended_and_read(tmp_path: Path) -> None:
    lines = AppendedLines(tmp_path / "x.jsonl")

    lines.append([{"text": "A dog. \ud83d"}])

    assert lines.read() == [{"text": "A dog. \ud83d"}]
