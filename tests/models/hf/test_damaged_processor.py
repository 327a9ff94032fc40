"""A processor's files make a prompt, or are refused in one sentence and in bounded time."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import models
from models import trial
from models.trial import try_out
from tests.models.damage import (
    ODD,
    WRONG,
    json_damages,
    paths,
    place_odd,
    refused,
    replaced,
    sentence,
    take_away,
)

ROOT = models.settings.ROOT
PICTURE = Image.effect_noise((40, 30), 80).convert("RGB")
ASKED = "{% for m in messages %}<image>{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}"
TEMPLATES = {
    "syntax": "{% if %}",
    "unknown name": "{{ nope.attribute.of }}",
    "raises": "{{ raise_exception('no way') }}",
    "range": "{% for i in range(10**12) %}x{% endfor %}",
    "recursive": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "includes": "{% include '/etc/passwd' %}",
    "escapes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "constant": "hello",
    "divides": "{{ 1 / 0 }}",
    "filter": "{{ messages | nosuch }}",
    "types": "{{ messages + 3 }}",
    "index": "{{ messages[99].content.x }}",
    "text alone": "{% for m in messages %}{{ m.content }}{% endfor %}",
    "no picture": ASKED.replace("<image>", ""),
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "many pictures": "{{ '<image>' * 1000 }}" + ASKED,
    "time": "{{ strftime_now(3) }}",
}
ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "power": "{{ 9**(9**9) }}",
    "power of names": "{% set x = 9 %}{{ x**(x**x) }}",
}
HUGE = {
    "text": "{% set n = 10**10 %}{{ 'x' * n }}",
    "list": "{{ (range(99999) | list) * 99999 }}",
    "padded": "{{ 'x' | center(9999999999) }}",
}


@pytest.fixture
def folder(folder_of: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder_of("llava"), tmp_path / "model"))


def show(folder: Path) -> str:
    return models.show_prompt("hf", "Is it?", PICTURE, checkpoint=str(folder)).text


def load(folder: Path) -> models.VLM:
    return models.load("hf", checkpoint=str(folder), device="cpu")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_that_can_t_be_used_is_one_sentence(folder: Path, name: str) -> None:
    (folder / "chat_template.jinja").write_text(TEMPLATES[name])
    # Before 5.1 transformers counts no image tokens, and loading the model tells.
    late = name in ("no picture", "many pictures")
    refused(lambda: load(folder) if late else show(folder), "LlavaProcessor")


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_end_is_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(trial, "CPU_SECONDS", 1)
    (folder / "chat_template.jinja").write_text(ENDLESS[name] + ASKED)
    start = time.monotonic()
    refused(lambda: show(folder), str(folder), "does not end within 1 seconds")
    if name == "loops":
        refused(lambda: load(folder), str(folder), "does not end within 1 seconds")
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("name", HUGE)
def test_a_template_that_makes_more_than_fits_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(trial, "MORE_BYTES", 1 << 30)
    (folder / "chat_template.jinja").write_text(HUGE[name] + ASKED)
    refused(lambda: show(folder), str(folder), "more than 1 GiB of memory")


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("preprocessor_config.json", ("size", "shortest_edge"), 10**6),
        ("preprocessor_config.json", ("crop_size",), {"height": 10**6, "width": 10**6}),
        ("processor_config.json", ("num_additional_image_tokens",), 10**9),
    ],
)
def test_a_config_that_makes_huge_pictures_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str, path: tuple[str, ...], value: object
) -> None:
    monkeypatch.setattr(trial, "MORE_BYTES", 1 << 30)
    monkeypatch.setattr(trial, "CPU_SECONDS", 2)
    content = json.loads((folder / file).read_bytes())
    (folder / file).write_text(json.dumps(replaced(content, path, value)))
    refused(lambda: show(folder), str(folder), "making a prompt for a picture")


def test_a_trial_leaves_errors_and_prints_to_the_caller(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        os.write(1, b"as a library in another language prints")
        os.write(2, b"likewise")
        raise KeyError("x")

    try_out("something", fail)
    try_out("something", lambda: None)
    assert capfd.readouterr() == ("", "")


def test_a_trial_that_waits_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a lock that another thread held, and not the checkpoint."""
    monkeypatch.setattr(trial, "WALL_SECONDS", 0.2)
    start = time.monotonic()
    try_out("something", lambda: time.sleep(60))
    assert time.monotonic() - start < 10


REAPED_BY_OTHERS = """
import os, signal, sys, time
from models import trial

def reap(*_):
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        pass

signal.signal(signal.SIGCHLD, {handler})
killed = []
os.kill = lambda *what: killed.append(what)
trial.try_out("something", lambda: time.sleep({seconds}))
assert not killed, killed
print("ended")
"""


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "reap"])
@pytest.mark.parametrize("seconds", [0, 0.3])
def test_a_trial_whose_process_others_wait_for_says_nothing_and_kills_none(
    handler: str, seconds: float
) -> None:
    program = REAPED_BY_OTHERS.format(handler=handler, seconds=seconds)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.returncode) == ("ended\n", 0), done.stderr


def test_a_trial_does_not_kill_what_was_waited_for_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the last look and the end of the waiting time, say."""
    monkeypatch.setattr(trial, "WALL_SECONDS", 0)
    killed: list[object] = []

    def gone(*_: object) -> None:
        raise ChildProcessError(errno.ECHILD, "No child processes")

    monkeypatch.setattr(os, "fork", lambda: 1 << 30)
    monkeypatch.setattr(os, "waitpid", gone)
    monkeypatch.setattr(os, "kill", lambda *what: killed.append(what))
    try_out("something", lambda: None)
    assert not killed


@pytest.mark.parametrize(
    "name",
    [
        *("preprocessor_config.json", "processor_config.json", "tokenizer_config.json"),
        *("tokenizer.json", "chat_template.json", "special_tokens_map.json", "config.json"),
        *("generation_config.json", "added_tokens.json"),
    ],
)
def test_files_of_a_processor_that_are_damaged_are_one_sentence_or_not_read(
    folder: Path, name: str
) -> None:
    path = folder / name
    text = path.read_bytes() if path.exists() else b'{"bos_token": "<s>"}'
    content = json.loads(text)
    if name == "chat_template.json":
        (folder / "chat_template.jinja").unlink()
    for damage in json_damages(text).values():
        path.write_bytes(damage)
        sentence(lambda: show(folder))
    for odd in ODD:
        place_odd(path, odd)
        sentence(lambda: load(folder))
        take_away(path)
    cases = [(at, value) for at in paths(content) for value in WRONG]
    for at, value in random.Random(name).sample(cases, min(len(cases), 8)):
        path.write_text(json.dumps(replaced(content, at, value)))
        sentence(lambda: load(folder))
    path.write_bytes(text)
