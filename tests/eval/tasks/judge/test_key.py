"""The key: where it is read, and that it is not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.tasks.judge.key import Key, read_key

SECRET = "sk-0123456789abcdef"


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
