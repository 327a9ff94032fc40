"""The README is short, and its commands run with the embedded model instead of the 7B.

`tests/docs` runs what needs nothing, and checks flags and links.
"""

from __future__ import annotations

import random
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

import eah
import models
from eval import chair, chair_eval, gpt4v_eval, pope_eval
from scripts.scenes.make import write_scenes
from scripts.scenes.scene import render
from tests.eval.judge_inputs import write_config

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(start: str) -> list[list[str]]:
    """Return the command lines of the README that begin with some words, comments left out."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith(start)]


def test_it_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 180


def test_what_is_measured_names_date_machine_and_command() -> None:
    for heading in ("## What it costs", "## Results"):
        section = README.split(heading)[1].split("\n## ")[0]
        assert re.search(r"\b20\d\d-\d\d-\d\d\b", section), heading
        assert re.search(r"H200|CPU", section), heading
        assert re.search(r"`(python|bash) scripts/\S+`", section), heading


def test_the_table_of_contents_names_every_section() -> None:
    contents = README.split("**Contents:**")[1].split("\n\n")[0]

    headings = re.findall(r"^## (.+)$", README, flags=re.MULTILINE)
    anchors = re.findall(r"\]\(#([\w-]+)\)", contents)

    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert anchors == plain


def test_the_library_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    vlm = models.load("tiny-llava", device="cpu")
    ids = vlm.prompt_ids("Is there a cat in the image?")
    prompts = vlm.embed_prompts(vlm.encode_images([render(random.Random(0)).image]), ["?"])
    inputs = {"inputs_embeds": prompts.embeds, "attention_mask": prompts.attention_mask}
    snippet = blocks("python")[1].replace(
        "output = ", "with eah.image_tokens(model, mask):\n    output = "
    )

    exec(
        snippet,
        {"eah": eah, "model": vlm.model, "inputs": inputs, "mask": prompts.image_mask},
    )

    assert "LayerReport(layer=1" in capsys.readouterr().out
    assert not eah.is_enabled(vlm.model)
    assert ids.count(-200) == 1


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
    compared = commands("python eval/pope_eval.py --model llava-1.5")[1:]
    built = ["--build-from", str(tmp_path / "annotations/instances_val2014.json")]
    assert len(compared) == 2

    for found in compared:
        words = [swapped.get(word, word) for word in found[2:]]
        assert pope_eval.main([*words, *more, *built]) == 0

    out = capsys.readouterr().out
    assert "eah@layers=2,threshold=0.002" in out
    assert "vcd+eah@layers=0-1" in out


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


def test_the_judge_s_command_runs(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = commands("python eval/gpt4v_eval.py")
    swapped = {
        "llava-1.5": "tiny-llava", "data/COCO/val2014": str(captions.parents[3] / "val2014"),
        "0": "-1",
    }  # fmt: skip
    arguments = [swapped.get(word, word) for word in found[2:]]
    settings = ["--judge-config", str(write_config(tmp_path, "http://127.0.0.1:9"))]

    assert gpt4v_eval.main([*arguments, *settings, "--output-dir", str(captions.parents[2])]) == 0

    assert "| eah      |        0 |      3 |" in capsys.readouterr().out


def test_the_conda_environment_installs_what_pip_does() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]

    assert pip == ["--constraint constraints.txt", "--editable .[chair,dev]"]
