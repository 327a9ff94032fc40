"""docs/models.md: its commands have flags that exist, its output is real, its Python runs."""

from __future__ import annotations

import random
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import eah
import models
from eval import chair_eval, pope_eval
from scripts.data import convert_checkpoint
from scripts.scenes.scene import render
from tests.models.hf.scenes import Scenes

ROOT = Path(models.__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
HUB_ID = "Qwen/Qwen2.5-VL-7B-Instruct"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture(scope="session")
def qwen(folder_of: Callable[[str], Path]) -> Path:
    return folder_of("qwen2.5-vl")


def test_the_commands_run(
    qwen: Path,
    scenes: Scenes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As far as --dry-run goes, and with a tiny checkpoint in the place of the real one."""
    lines = "".join(blocks(PAGE, "bash")).replace("\\\n", " ").splitlines()
    found = [shlex.split(line) for line in lines if HUB_ID in line]
    swapped = {HUB_ID: str(qwen), "data/COCO/val2014": str(scenes.images)}
    for words in found:
        arguments = [swapped.get(word, word) for word in words[2:]]
        arguments += ["--output-dir", str(tmp_path), "--dry-run"]
        if "pope" in words[1]:
            status = pope_eval.main([*arguments, "--pope-path", str(scenes.pope)])
        else:
            status = chair_eval.main([*arguments, "--num-images", "2"])
        assert status == 0, capsys.readouterr().err
    assert len(found) == 2


def test_the_dry_run_prints_what_the_page_says(
    qwen: Path, scenes: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shown,) = re.findall(r"```text\n(first prompt.*?)```", PAGE, flags=re.DOTALL)
    status = pope_eval.main(
        [
            *("--model", "hf", "--checkpoint", str(qwen), "--protocol", "chat-short", "--dry-run"),
            *("--data-path", str(scenes.images), "--pope-path", str(scenes.pope)),
            *("--pope-type", "random", "--output-dir", str(tmp_path)),
        ]
    )
    assert status == 0
    assert shown in capsys.readouterr().out


def test_its_flags_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (pope_eval, convert_checkpoint):
        with pytest.raises(SystemExit):
            command.main(["--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= known


def test_the_lines_of_python_run(
    qwen: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("cat.jpg", "dog.jpg")):
        render(random.Random(seed)).image.save(name)
    (snippet,) = (code for code in blocks(PAGE, "python") if '"hf"' in code)

    exec(snippet.replace(HUB_ID, str(qwen)), {"eah": eah, "models": models})

    assert capsys.readouterr().out.strip()
