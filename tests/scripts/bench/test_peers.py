"""The ways to ask that are compared ask the same questions with the same prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from eval.run.settings import RunSettings
from scripts.bench import peers
from scripts.bench.evaluation import OBJECTS, write_pictures
from scripts.bench.peer_tools import BATCH, Asked, make_checkpoint, ours, plain_script


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """Return questions about two pictures, picture by picture in turns."""
    folder = tmp_path_factory.mktemp("peers")
    make_checkpoint(folder / "model", tiny=True)
    names = write_pictures(folder, 2)
    questions = [(name, peers.QUESTION.format(thing)) for thing in OBJECTS for name in names]
    return Asked(folder / "model", folder, questions, 6, torch.device("cpu"))


def test_this_project_answers_as_the_plain_script(asked: Asked) -> None:
    expected = plain_script(asked)(12)

    assert len(set(expected)) >= 6  # they depend on pictures and questions
    assert ours(asked)(12) == expected


def test_prompts_are_those_of_llava(asked: Asked) -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(asked.checkpoint)
    of_parts = [{"type": "image"}, {"type": "text", "text": "Is it?"}]
    prompts = {
        processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        for content in (of_parts, "<image>\nIs it?")  # as lmms-eval has it
    }

    (prompt,) = prompts
    assert prompt.startswith("A chat between a curious user and an artificial")
    assert prompt.endswith("questions. USER: <image>\nIs it? ASSISTANT:")


def test_the_batch_is_the_commands_own() -> None:
    assert RunSettings.__dataclass_fields__["batch_size"].default == BATCH


def test_answers_that_differ_are_counted() -> None:
    answers = {peers.PLAIN: ["yes", "no", "no"], "other": [" yes ", "yes", "No"]}

    said = peers.differences(answers, "other")

    assert said == (
        "other: 2 of 3 answers differ from those of the plain transformers script, which gave "
        "2 different ones."
    )


def test_the_command_says_who_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_: Asked) -> peers.Ask:
        raise ImportError("no lmms_eval")

    def short(_: Asked, *, eah: bool = False) -> peers.Ask:
        return lambda count: ["no"] * count

    monkeypatch.setattr(
        peers,
        "WAYS",
        {peers.PLAIN: short, "lmms-eval, llava_hf": missing, "this project": short},
    )
    file = tmp_path / "peers.json"

    words = ["--tiny", "--pictures", "1", "--repeats", "1", "--json", str(file)]
    assert peers.main(words) == 0

    title = "6 questions about 1 pictures, LLaVA of 2 layers and width 64, float32"
    printed = capsys.readouterr().out
    left_out = "lmms-eval, llava_hf | left out: ImportError: no lmms_eval"
    assert f"| {title} |  | {left_out} |  |" in printed
    assert "\nthis project: 0 of 6 answers differ from those of the" in printed
    arms = [row["arm"] for row in json.loads(file.read_text())["rows"]]
    assert arms == [peers.PLAIN, "this project", "lmms-eval, llava_hf"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--pictures 0", "--pictures 0: at least 1 is needed"),
        ("--repeats 0", "--repeats 0: at least 1 is needed"),
        ("--checkpoint none", "--checkpoint none: a folder with a config.json is needed"),
        ("--tiny --checkpoint none", "--tiny makes its own checkpoint"),
    ],
)
def test_wrong_flags_are_refused(flags: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        peers.main(flags.split())

    assert said in capsys.readouterr().err
