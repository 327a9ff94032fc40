"""What a command loads before it has work to do: torch and its like take seconds to import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import models
from eval.evaluate import task_class

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "pope_eval", "chair_eval", "chair", "gpt4v_eval", "mmhal_eval", "evaluate", "runs", "sinks",
)  # fmt: skip
# Some commands have their flags behind a word.
WORDS = {"evaluate": ("--task", "mme"), "runs": ("rescore",)}
HEAVY = {"torch", "transformers", "accelerate", "scipy", "nltk", "openai"}


@dataclass(frozen=True)
class Done:
    """How a program ended, what it said on standard error, and what it imported."""

    status: int
    out: str
    said: list[str]
    imported: set[str]


def python(*words: str) -> Done:
    """Run Python, which lists on standard error whatever is imported, also if it fails."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], cwd=ROOT, capture_output=True, text=True
    )
    lines = done.stderr.splitlines()
    times = [line for line in lines if line.startswith("import time:")]
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in times}
    return Done(done.returncode, done.stdout, [x for x in lines if x not in times], names)


def test_the_list_of_imports_is_read_right() -> None:
    done = python("-c", "import json.decoder; import no_such_module")

    assert done.status == 1
    assert "json" in done.imported
    assert done.said[-1] == "ModuleNotFoundError: No module named 'no_such_module'"


@pytest.mark.parametrize(("command", "words"), [*((name, ()) for name in COMMANDS), *WORDS.items()])
def test_help_loads_nothing_heavy(command: str, words: Sequence[str]) -> None:
    for start in ([f"eval/{command}.py"], ["-m", f"eval.{command}"]):
        done = python(*start, *words, "--help")

        assert (done.status, done.said) == (0, [])
        assert "usage: " in done.out or command == "runs"
        assert f"python eval/{command}.py " in done.out
        assert max(map(len, done.out.splitlines())) <= 100
        assert "eval" in done.imported
        assert not done.imported & HEAVY


@pytest.mark.parametrize("task", ["mmhal", "dash-b"])
def test_the_example_of_a_benchmark_is_its_own(task: str) -> None:
    done = python("eval/evaluate.py", "--task", task, "--help")

    start = f"    python eval/evaluate.py --task {task} --model llava-1.5 \\\n        --"
    assert start in done.out
    assert f"--data-path {task_class(task).pictures}\n\n" in done.out
    assert max(map(len, done.out.splitlines())) <= 100


def test_scoring_captions_loads_nothing_heavy(tmp_path: Path) -> None:
    truth, captions = tmp_path / "truth.json", tmp_path / "captions.jsonl"
    truth.write_text('{"1": ["dog"], "2": ["cat"]}')
    captions.write_text("".join(f'{{"image_id": {n}, "caption": "A dog."}}\n' for n in (1, 2)))
    words = ("--cap_file", captions, "--ground-truth", truth, "--analyzer", "lexicon")

    done = python("eval/chair.py", *map(str, words))

    assert (done.status, done.said) == (0, [])
    assert "CHAIRs" in done.out
    assert "numpy" in done.imported
    assert not done.imported & {*HEAVY, "jinja2", "tqdm"}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_loads_nothing_heavy(command: str) -> None:
    needed = {"chair": ("--cap_file", "x"), "runs": ("list",)}

    done = python(f"eval/{command}.py", *(needed.get(command) or WORDS.get(command, ())), "--halp")

    assert done.status == 2
    assert len(done.said) == 1
    assert "--halp is unknown" in done.said[0]
    assert not done.imported & HEAVY


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pope_eval --batch-size none", "'none' is neither auto nor a number"),
        ("pope_eval --pope-type radnom", "did you mean 'random'"),
        ("pope_eval --parser pop", "did you mean 'pope'"),
        ("pope_eval --batch-size 0", "batch_size=0, but at least 1 is needed"),
        ("pope_eval --method eha", "did you mean 'eah'"),
        ("pope_eval --model tiny-lava", "did you mean 'tiny-llava'"),
        ("pope_eval --options beams=5", "did you mean 'beam'"),
        ("pope_eval --config {unknown_key}", "did you mean 'beam'"),
        ("pope_eval --pope-path {questions}", "no pictures: pass --data-path"),
        ("pope_eval --pope-path {questions} --data-path .", "1 of 1 pictures are not in ."),
        ("chair_eval --num-images 0 --data-path .", "num_images=0, but at least 1 is needed"),
        ("chair_eval --config {unknown_key}", "did you mean 'beam'"),
        ("chair_eval --data-path nowhere", "--data-path nowhere is not a folder"),
        ("chair --cap_file x", "no ground truth: pass --coco_path"),
        ("chair --cap_file x --coco_path y --max-words 0", "--max_words 0, but at least 1"),
        ("evaluate", "the following arguments are required: --task"),
        ("evaluate --task", "argument --task: expected one argument"),
        ("evaluate --task amber", "is unknown: known are amber-discriminative, amber-generative"),
        ("evaluate --task mm", "task 'mm' is unknown: did you mean 'mme'"),
        ("evaluate --task mme", "no pictures: pass --data-path, such as data/MME/MME_Benchmark"),
        ("evaluate --task mme --pope-type all", "pope-gqa; mme has --part; --help lists"),
        ("evaluate --task repope --part x", "amber-discriminative; repope has --pope-type; --help"),
        ("evaluate --task mmhal --answers x", "--answers is not a flag of mmhal, but of pope, "),
        ("evaluate --task=mme --data-path .", "has none of MME's categories"),
        ("evaluate --task mme --parser first4", "did you mean 'first-4'"),
        (
            "evaluate --task amber-generative --questions nowhere",
            "nowhere is not a folder; pass the",
        ),
        ("evaluate --task amber-generative --partial", "--partial is only used with --answers"),
        ("evaluate --task pope --pope-type radnom", "did you mean 'random'"),
        ("runs lst", "did you mean 'list'"),
        ("runs list nowhere", "nowhere is not a folder"),
        ("runs rescore 7c1f --runs-dir nowhere", "no run in nowhere for '7c1f'"),
        ("gpt4v_eval --judge-protocol jsn", "did you mean 'json'"),
        ("gpt4v_eval --beam 0", "beam=0, but at least 1 is needed"),
        ("gpt4v_eval --method eah", "exactly two methods are needed"),
        ("mmhal_eval", "no answers: pass --answers with files"),
        (
            "mmhal_eval --answers x",
            "no template: pass the file with the judge's prompt as --template",
        ),
        ("evaluate --task mmhal --data-path .", "MMHal-Bench as --questions"),
        ("gpt4v_eval --answers-1 x --beam 5", "--beam affects how a model answers"),
    ],
)
def test_a_wrong_setting_loads_nothing_heavy(words: str, message: str, tmp_path: Path) -> None:
    unknown_key = tmp_path / "settings.yaml"
    unknown_key.write_text("beem: 5\n")
    questions = tmp_path / "coco_pope_random.json"
    questions.write_text('{"question_id": 1, "image": "a.jpg", "text": "?", "label": "yes"}\n')
    command, *flags = words.format(unknown_key=unknown_key, questions=questions).split()

    done = python(f"eval/{command}.py", *flags)

    assert done.status == 2
    assert len(done.said) == 1
    assert done.said[0].startswith(f"{command}: error: ")
    assert message in done.said[0]
    assert not done.imported & HEAVY


def test_importing_models_loads_nothing_heavy() -> None:
    done = python("-c", "import models; print(models.available(), *dir(models))")

    assert "'tiny-llava'" in done.out
    assert set(models.__all__) <= set(done.out.split())
    assert not done.imported & HEAVY


def test_public_names_of_models_are_found_when_they_are_used() -> None:
    for name in set(models.__all__) - {"PARTS"}:
        assert getattr(models, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'models' has no attribute 'no_such_name'"):
        _ = models.no_such_name
