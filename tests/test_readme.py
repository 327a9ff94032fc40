"""Every command and snippet of the README runs, with the embedded model in the place of the 7B."""

from __future__ import annotations

import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import eah
import models
from eval import chair, chair_eval, gpt4v_eval, pope_eval
from scripts.scenes.make import write_scenes
from scripts.scenes.scene import render
from tests.eval.judge_inputs import write_config
from tests.eval.judge_stub import SECRET, Stub, serve

ROOT = Path(__file__).resolve().parents[1]
PIP_FLAGS = {"--constraint", "--editable"}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(start: str) -> list[list[str]]:
    """Return the command lines of the README that begin with some words, comments left out."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith(start)]


def test_the_three_lines_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    render(random.Random(0)).image.save("cat.jpg")
    snippet = blocks("python")[0].replace('"llava-1.5", checkpoint="llava-hf/llava-1.5-7b-hf"',
                                          '"tiny-llava", device="cpu"')  # fmt: skip

    exec(snippet)

    assert capsys.readouterr().out.strip()


def test_the_library_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    vlm = models.load("tiny-llava", device="cpu")
    ids = vlm.prompt_ids("Is there a cat in the image?")
    prompts = vlm.embed_prompts(vlm.encode_images([render(random.Random(0)).image]), ["?"])
    inputs = {"inputs_embeds": prompts.embeds, "attention_mask": prompts.attention_mask}
    snippet = blocks("python")[2].replace(
        "output = ", "with eah.image_tokens(model, mask):\n    output = "
    )

    exec(
        snippet,
        {"eah": eah, "model": vlm.model, "inputs": inputs, "mask": prompts.image_mask},
    )

    assert "LayerReport(layer=1" in capsys.readouterr().out
    assert not eah.is_enabled(vlm.model)
    assert ids.count(-200) == 1


def test_a_rule_of_ones_own_is_ten_lines_and_runs(capsys: pytest.CaptureFixture[str]) -> None:
    vlm = models.load("tiny-llava", device="cpu")
    prompts = vlm.embed_prompts(vlm.encode_images([render(random.Random(0)).image]), ["?"])
    inputs = {"inputs_embeds": prompts.embeds, "attention_mask": prompts.attention_mask}
    inputs["max_new_tokens"] = 2
    snippet = blocks("python")[3]

    assert len([line for line in snippet.splitlines() if line.strip()]) <= 10
    with eah.enabled(vlm, eah.EAHConfig()), eah.image_tokens(vlm, prompts.image_mask):
        vlm.model.generate(**inputs)
    code = snippet.replace("    model.generate", "    with known(model): model.generate")
    known = {"known": lambda model: eah.image_tokens(model, prompts.image_mask)}
    exec(code, {"eah": eah, "model": vlm.model, "inputs": inputs, **known})

    assert "LayerReport(layer=1, head=(" in capsys.readouterr().out
    assert not eah.is_enabled(vlm)


def test_the_papers_command_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(tmp_path, count=3, seed=1)
    found = commands("python eval/pope_eval.py --model llava-1.5")[:1]
    assert len(found) == 1
    swapped = {"llava-1.5": "tiny-llava", "data/COCO/val2014": str(tmp_path / "val2014"), "0": "-1"}
    arguments = [swapped.get(word, word) for word in found[0][2:]]

    status = pope_eval.main(
        [*arguments, "--build-from", str(tmp_path / "annotations/instances_val2014.json"),
         "--output-dir", str(tmp_path / "runs"), "--limit", "4"]
    )  # fmt: skip

    assert status == 0
    assert "5 beam(s)" in capsys.readouterr().out


def test_the_commands_with_other_methods_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path, count=3, seed=1)
    swapped = {"llava-1.5": "tiny-llava", "data/COCO/val2014": str(tmp_path / "val2014"), "0": "-1"}
    more = ["--output-dir", str(tmp_path / "runs"), "--limit", "2"]
    compared = commands("python eval/pope_eval.py --model llava-1.5")[1:3]
    pope = commands("python eval/pope_eval.py --model llava-1.5")[3]
    chair = commands("python eval/chair_eval.py --model llava-1.5")[1]
    built = ["--build-from", str(tmp_path / "annotations/instances_val2014.json")]

    for found in compared:
        words = [swapped.get(word, word) for word in found[2:]]
        assert pope_eval.main([*words, *more, *built]) == 0
    assert "eah@layers=2,threshold=0.002" in capsys.readouterr().out
    assert pope_eval.main([*(swapped.get(word, word) for word in pope[2:]), *more, *built]) == 0
    assert "deco+eah" in capsys.readouterr().out
    short = ["--max-new-tokens", "8"]
    assert chair_eval.main([*(swapped.get(word, word) for word in chair[2:]), *more, *short]) == 0
    assert "| opera+eah" in capsys.readouterr().out


def test_scripts_that_are_named_are_there() -> None:
    for script in re.findall(r"bash (scripts/\S+\.sh)", README):
        subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)
    for path in re.findall(r"`(scripts/[\w/]+\.py|configs/\S+?\.yaml|eah/\w+\.py)`", README):
        assert (ROOT / path).is_file(), path


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the README's captioning command and return its run folder."""
    folder = tmp_path_factory.mktemp("chair")
    write_scenes(folder, count=3, seed=1)
    found = commands("python eval/chair_eval.py --model")[0]
    swapped = {"llava-1.5": "tiny-llava", "data/COCO/val2014": str(folder / "val2014"), "0": "-1"}
    arguments = [swapped.get(word, word) for word in found[2:]]

    assert chair_eval.main([*arguments, "--output-dir", str(folder / "runs")]) == 0

    (run,) = (folder / "runs/chair/tiny-llava").iterdir()
    return run


def test_the_chair_commands_run(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = commands("python eval/chair.py --cap_file")
    swapped = {
        "captions.jsonl": str(captions / "report/captions_eah.jsonl"),
        "data/COCO/annotations": str(captions.parents[3] / "annotations"),
        "out.json": str(tmp_path / "out.json"),
    }
    arguments = [swapped.get(word, word) for word in found[2:]]

    assert chair.main([*arguments, "--splits", "val2014"]) == 0

    assert "| eah    |" in capsys.readouterr().out


def test_the_judge_s_commands_run(
    captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    made, given = commands("python eval/gpt4v_eval.py")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    swapped = {
        "llava-1.5": "tiny-llava", "data/COCO/val2014": str(captions.parents[3] / "val2014"),
        "0": "-1", "baseline.jsonl": str(captions / "report/captions_baseline.jsonl"),
        "eah.jsonl": str(captions / "report/captions_eah.jsonl"),
        "judge.html": str(tmp_path / "r.html"),
    }  # fmt: skip
    with serve(Stub()) as stub:
        settings = ["--judge-config", str(write_config(tmp_path, stub.url))]

        for found in (made, given):
            runs = captions.parents[2] if found is made else tmp_path
            arguments = [swapped.get(word, word) for word in found[2:]]
            assert gpt4v_eval.main([*arguments, *settings, "--output-dir", str(runs)]) == 0

    out = capsys.readouterr().out
    assert "| eah      |        0 |      3 |" in out
    assert "eah against baseline on 3 pictures" in out
    assert (tmp_path / "r.html").is_file()


def test_flags_that_are_named_exist() -> None:
    commands = ("eval/evaluate --task mme", "eval/runs rescore", "eval/runs export",
                "eval/pope_eval", "eval/chair_eval", "eval/chair", "eval/gpt4v_eval",
                "scripts/data/convert_checkpoint")  # fmt: skip
    shown = "".join(
        subprocess.run(
            [sys.executable, f"{(words := command.split())[0]}.py", *words[1:], "--help"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout
        for command in commands
    )  # fmt: skip
    for heading in (
        "## The paper's commands",
        "## Change one thing and compare",
        "## Other methods",
        "## The four models",
        "## The GPT-4V judge",
    ):
        section = README.split(heading)[1].split("\n## ")[0]
        for flag in set(re.findall(r"--[A-Za-z][A-Za-z_-]+", section)) - PIP_FLAGS:
            assert flag in shown, flag


def test_the_conda_environment_installs_what_pip_does() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]

    assert pip == ["--constraint constraints.txt", "--editable .[chair,dev]"]
