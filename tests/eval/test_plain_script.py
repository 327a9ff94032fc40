"""tiny-llava through a plain script of transformers answers as `pope_eval.py` does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import eah
import models
from eval.pope_eval import main
from eval.run.recorded import read_run
from tests.eval.small_runs import only_run, pope_flags

TINY = Path(__file__).resolve().parents[2] / "models/tiny-llava"
COUNT = 200
PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions.USER: <image> {} ASSISTANT:"
)
ARMS = {"baseline": nullcontext, "eah": eah.enabled}


class Asked(NamedTuple):
    """A question, and what `pope_eval.py` made of it."""

    image: Path
    question: str
    answers: dict[str, str]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Asked]:
    """Return 200 different questions about rendered scenes, answered in both arms."""
    folder = tmp_path_factory.mktemp("pope")
    flags = [*pope_flags(folder, 26), "--pope-type", "all", "--batch-size", "24"]
    assert main([*flags, "--output-dir", str(folder / "runs")]) == 0
    run = read_run(only_run(folder / "runs"))
    found: dict[tuple[str, str], dict[str, str]] = {}
    for arm in ARMS:
        for answer in run.arms[arm].answers:
            key = (answer.item.image, answer.item.question)
            found.setdefault(key, {})[arm] = answer.text
    rows = [
        Asked(folder / "val2014" / image, question, answers)
        for (image, question), answers in found.items()
    ]
    assert len(rows) >= COUNT
    return rows[:COUNT]


@pytest.fixture(scope="module")
def processor() -> Any:
    # With torchvision transformers 5 would resize tensors, which gives other pixels than PIL.
    return AutoProcessor.from_pretrained(TINY, use_fast=False)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(TINY, dtype=torch.float32).eval()


def answers_of(model: Any, processor: Any, asked: list[Asked], batch: int) -> Iterator[str]:
    """Yield the answers of a script that knows nothing of our wrappers."""
    for start in range(0, len(asked), batch):
        rows = asked[start : start + batch]
        inputs = processor(
            images=[Image.open(row.image) for row in rows],
            text=[PROMPT.format(row.question) for row in rows],
            padding=True,
            return_tensors="pt",
        )
        output = model.generate(**inputs, max_new_tokens=10, do_sample=False)
        new = output[:, inputs["input_ids"].shape[1] :]
        texts = processor.batch_decode(new, skip_special_tokens=True)
        yield from (text.strip() for text in texts)


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 16])
@pytest.mark.parametrize("arm", ARMS)
def test_answers_are_those_of_the_command(
    asked: list[Asked], model: Any, processor: Any, arm: str, batch: int
) -> None:
    settings = () if arm == "baseline" else (model, eah.EAHConfig.preset("scale-free"))
    with ARMS[arm](*settings) as handle:
        texts = list(answers_of(model, processor, asked, batch))
        if handle is not None:
            assert set(handle.report()[0].image_tokens) == {64}

    assert texts == [row.answers[arm] for row in asked]
    assert len(set(texts)) > 10


def test_eah_changes_some_of_the_answers_compared_here(asked: list[Asked]) -> None:
    assert any(row.answers["baseline"] != row.answers["eah"] for row in asked)


def test_prompts_and_pixels_are_ours(asked: list[Asked], processor: Any) -> None:
    vlm = models.load("tiny-llava", device="cpu")
    for row in asked[:50]:
        image = Image.open(row.image)
        inputs = processor(images=image, text=PROMPT.format(row.question), return_tensors="pt")
        ids = [id_ if id_ >= 0 else 640 for id_ in vlm.prompt_ids(row.question)]
        place = ids.index(640)

        assert inputs["input_ids"].tolist() == [ids[:place] + [640] * 64 + ids[place + 1 :]]
        assert torch.equal(inputs["pixel_values"], vlm.preprocess([image]))
