"""The key: hidden in every form and cut, and read from a variable or a file without a leak."""

from __future__ import annotations

import base64
import html
import json
import os
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from eval.errors import EvaluationError
from eval.tasks.judge import keys
from eval.tasks.judge.keys import HIDDEN, LARGEST_FILE, SHORTEST, Key, note_readers, read_key
from tests.eval.judge_stub import SECRET

ODD = "sk-proj/+a&b<c'd\"e\\f%g-1="
FORMS = {
    "plain": lambda key: key,
    "JSON": json.dumps,
    "JSON twice": lambda key: json.dumps(json.dumps(key)),
    "JSON's slashes": lambda key: json.dumps(key).replace("/", "\\/"),
    "numbers": lambda key: "".join(f"\\u{ord(one):04X}" for one in key),
    "URL": lambda key: quote(key, safe=""),
    "URL twice": lambda key: quote(quote(key, safe=""), safe=""),
    "percents": lambda key: "".join(f"%{ord(one):02x}" for one in key),
    "HTML": html.escape,
    "entities": lambda key: "".join(f"&#{ord(one)};" for one in key),
    "repr": repr,
    "bytes": lambda key: repr(key.encode()),
    "capitals": str.upper,
    "header": lambda key: f"authorization: Bearer {key}",
}


@pytest.mark.parametrize("secret", [SECRET, ODD])
@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_hidden_in_the_forms_that_a_server_echoes(form: str, secret: str) -> None:
    shown = FORMS[form](secret)

    found = Key(secret).hide(f"before {shown} after")

    # Quotes, backslashes before them and the name of the header may stay; nothing of the key may.
    rest = found.replace("authorization: Bearer ", "").replace(HIDDEN, "")
    assert HIDDEN in found
    assert rest.startswith("before ")
    assert rest.endswith(" after")
    assert not set(rest.removeprefix("before ").removesuffix(" after")) - set("\"'\\b")


@pytest.mark.parametrize("secret", [SECRET, ODD])
@pytest.mark.parametrize("before", ["", "u", "us", "use", "user:", "Bearer "])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_key_in_base64_is_hidden_wherever_it_begins(
    secret: str, before: str, encode: Any
) -> None:
    shown = encode(f"{before}{secret} and more".encode()).decode()

    found = Key(secret).hide(shown)

    start, _, end = found.partition(HIDDEN)
    assert shown.startswith(start)
    assert shown.endswith(end)
    kept = base64.urlsafe_b64decode(
        start.replace("+", "-").replace("/", "_")[: len(start) // 4 * 4]
    )
    assert kept.decode() in before
    assert len(end) < len(" and more") * 4 / 3 + 4


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=SHORTEST, max_size=60),
    st.text(max_size=30),
    st.text(max_size=30),
    st.integers(0, 60),
    st.integers(0, 60),
)
@example(SECRET, "\u0130", "", 0, 40)  # a letter that is two as a small one
@example("\\" * 9, "\\", "\\", 0, 9)
@example("%41%41%41", "%25", "", 0, 9)
def test_no_piece_of_any_key_is_left(
    secret: str, before: str, after: str, start: int, end: int
) -> None:
    found = Key(secret).hide(before + secret[start:end] + after)

    left = {found[at : at + SHORTEST] for at in range(len(found) - SHORTEST + 1)}
    assert not left & {secret[at : at + SHORTEST] for at in range(len(secret) - SHORTEST + 1)}


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_other_texts_stay_as_they_are(text: str) -> None:
    parts = (SECRET[at : at + SHORTEST] for at in range(len(SECRET) - SHORTEST + 1))
    assume(not any(part.lower() in text.lower() for part in parts))

    assert Key(SECRET).hide(text) == text


def test_a_long_text_is_looked_through_in_little_time() -> None:
    for text in ("\\" * 10**6, "%25" * 60_000, "&amp;" * 40_000, "\\u" * 60_000, "x" * 200_000,
                 "&#" + "0" * 10**6):  # fmt: skip
        start = time.process_time()
        Key(SECRET).hide(text)
        assert time.process_time() - start < 5


def test_names_in_objects_are_texts_too() -> None:
    found = Key(SECRET).hide_in({SECRET: [SECRET, 7, None, {"a": (SECRET,)}]})

    assert found == {HIDDEN: [HIDDEN, 7, None, {"a": [HIDDEN]}]}


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
    with pytest.raises(
        EvaluationError, match="pass the name of a file that contains the key"
    ) as caught:
        read_key(Path(SECRET), {})

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "content",
    [b"", b" \n", b"\xef\xbb\xbf", b"two words", b"a\nb", "schl\u00fcssel".encode(), b"\xff",
     b"\0" * 40, "sk-words".encode("utf-16-le"), b"Bearer sk-words", b"sk-words\nsk-other"],
)  # fmt: skip
def test_what_can_t_be_a_key_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)

    with pytest.raises(EvaluationError, match="does not contain a key") as caught:
        read_key(tmp_path / "key", {})

    assert "words" not in str(caught.value)


@pytest.mark.parametrize(
    "encoded", [f"\ufeff{SECRET}".encode(), SECRET.encode("utf-16"), f" {SECRET}\r\n".encode()]
)
def test_marks_and_spaces_around_the_key_are_left_out(tmp_path: Path, encoded: bytes) -> None:
    (tmp_path / "key").write_bytes(encoded)

    assert read_key(tmp_path / "key", {}).reveal() == SECRET


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f'"{SECRET}"', "has quotes around the key"),
        (f"'{SECRET}'", "has quotes around the key"),
        (f"OPENAI_API_KEY={SECRET}", "contains an assignment such as NAME=key"),
        (f"export OPENAI_API_KEY='{SECRET}'", "contains an assignment such as NAME=key"),
        (f"OPENAI_API_KEY = {SECRET}", "contains an assignment such as NAME=key"),
        (f'$env:OPENAI_API_KEY="{SECRET}"', "contains an assignment such as NAME=key"),
        ("x" * (LARGEST_FILE + 1), f"larger than {LARGEST_FILE} bytes"),
    ],
)
def test_what_is_around_a_key_is_refused_in_a_file_and_in_the_variable(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "key").write_text(content)
    variable = {"OPENAI_API_KEY": content} if len(content) < LARGEST_FILE else {}

    for path, environment in ((tmp_path / "key", {}), (None, variable)):
        if path is None and not variable:
            continue
        with pytest.raises(EvaluationError, match=message) as caught:
            read_key(path, environment)

        assert SECRET not in str(caught.value)


def test_base64_of_a_key_is_no_assignment() -> None:
    assert read_key(None, {"OPENAI_API_KEY": "abcdefghijk=="}).reveal() == "abcdefghijk=="


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 300, "\udcff", "/dev/zero", "/dev/null"])
def test_no_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        EvaluationError, match=r"--api-key-file can't be read: .{3,}; pass the name of a file"
    ):
        read_key(tmp_path / name, {})


def test_a_pipe_holds_a_key_if_somebody_writes_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(keys, "PATIENCE_S", 0.5)
    with pytest.raises(EvaluationError, match=r"the pipe sent nothing for 0\.5 s"):
        read_key(tmp_path / "pipe", {})

    reading, writing = os.pipe()
    threading.Timer(0.1, lambda: (os.write(writing, SECRET.encode()), os.close(writing))).start()
    assert read_key(Path(f"/dev/fd/{reading}"), {}).reveal() == SECRET  # as of <(command)
    os.close(reading)


@pytest.mark.parametrize(("mode", "noted"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_can_read_is_noted(tmp_path: Path, mode: int, noted: bool) -> None:
    (tmp_path / "key").write_text(SECRET)
    (tmp_path / "key").chmod(mode)

    assert ("chmod 600" in (note_readers(tmp_path / "key") or "")) is noted
