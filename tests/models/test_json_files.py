"""JSON is read as Python reads it, or refused with the file's name and the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ModelError
from models.json_files import json_fault, parse_json, read_json_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
@settings(max_examples=100, deadline=None)
def test_values_are_read_from_text_and_bytes(value: Any, encoding: str) -> None:
    text = json.dumps(value)

    assert parse_json(text) == value
    assert parse_json(text.encode(encoding)) == value


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a":\n 1', "Expecting ',' delimiter, line 2, column 3"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "key 'c' is duplicated in one object"),
        ("[" * 100_000, "nested too deep"),
        ("9" * 5000, "a number of thousands of digits"),
        (b'{"a": "\xe9"}', "not UTF-8 text, from byte 7"),
        (b'"\xff\xfe\xfa"', "not UTF-8 text, from byte 1"),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path: Path, text: str | bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as error:
        parse_json(text)

    assert json_fault(error.value) == fault
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError) as told:
        read_json_object(path, "config")
    assert str(told.value).startswith(f"config {path} is damaged, it is not whole JSON ({fault})")


@given(st.binary(max_size=40) | st.text('[]{}":,0123456789.eE+-truefalsn\\ud\n ', max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_value_or_refused(text: str | bytes) -> None:
    try:
        parse_json(text)
    except ValueError as error:
        said = json_fault(error)
    else:
        said = "read"
    assert said


@pytest.mark.parametrize("name", [".", "/dev/zero", "none", "x" * 300])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"is not a file|can't be read"):
        read_json_object(tmp_path / name, "config")


def test_other_values_than_objects_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")

    with pytest.raises(ModelError, match=r"index .*x\.json contains list, not a JSON object"):
        read_json_object(tmp_path / "x.json", "index")
