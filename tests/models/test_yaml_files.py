"""YAML of settings is read, or refused in one line that says where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.errors import ModelError
from models.settings import read_yaml
from models.yaml_files import parse_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_plain_values_are_read_as_the_safe_loader_reads_them(value: Any) -> None:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    text = yaml.dump(value, Dumper=Plain, allow_unicode=False)

    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1", "expected ',' or ']', but got '<stream end>', line 1, column 3"),
        ("a: 1\nb: 2\na: 3", "key 'a' is duplicated, line 3, column 1"),
        ("{a: {b: 1, b: 2}}", "key 'b' is duplicated, line 1, column 12"),
        ("1: 2", "key 1 is not text; put quotes around it, line 1, column 1"),
        ("no: 2", "key False is not text; put quotes around it, line 1, column 1"),
        ("? [a]\n: 1", "key ['a'] is not text; put quotes around it, line 1, column 3"),
        ("a: 2024-13-45", "'2024-13-45' can't be read; put quotes around it if it is text, line 1"),
        ("a: " + "9" * 5000, "can't be read; put quotes around it if it is text, line 1, column 4"),
        (
            "a: &x [1]\nb: *x",
            "*names of lists and mappings are not read; write the value out",
        ),
        (
            "a: &x\n  b: *x",
            "*names of lists and mappings are not read; write the value out",
        ),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("[" * 100_000, "nested too deep"),
        ("a: \0", "special characters are not allowed"),
        ("a: 1\n\tb: 2", "line 2, column 1"),
    ],
)
def test_what_can_not_be_read_is_one_line_that_says_where(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as error:
        parse_yaml(text)

    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@given(st.binary(max_size=60) | st.text("ab:-[]{}?!&*#|>%@`'\"\\ \n\t019.e~<=", max_size=60))
@example("a: 0x_")
@example("<<: {a: 1}")
@example("a: !!timestamp x")
@example("a: !!binary x")
@example('a: "\\UFFFFFFFF"')
@example("? {a: 1}\n: 2")
@example(b"\xff\xfe\0")
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_value_or_refused(text: str | bytes) -> None:
    try:
        parse_yaml(text)
    except ValueError as error:
        said = str(error)
    else:
        said = "read"
    assert said


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("é: 1".encode("latin-1"), "is not YAML as settings need it: "),
        (b"- a\n", "contains list; it must be `key: value`"),
        (b"", "contains NoneType; it must be `key: value`"),
        (b"a: 1\na: 2\n", "is not YAML as settings need it: key 'a' is duplicated, line 2, col"),
    ],
)
def test_a_file_of_settings_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "x.yaml").write_bytes(content)

    with pytest.raises(ModelError) as error:
        read_yaml(tmp_path / "x.yaml")

    assert str(tmp_path / "x.yaml") in str(error.value)
    assert sentence in str(error.value)


@pytest.mark.parametrize("name", [".", "/dev/zero", "none.yaml", "x" * 300])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"is not a file|can't be read"):
        read_yaml(tmp_path / name)


def test_a_file_of_settings_is_bounded(tmp_path: Path) -> None:
    with (tmp_path / "x.yaml").open("wb") as file:
        file.truncate(17 << 20)

    with pytest.raises(ModelError, match="is it the right file"):
        read_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_marked_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x.yaml").write_text("a: é", encoding=encoding)

    assert read_yaml(tmp_path / "x.yaml") == {"a": "é"}
