"""Whatever decides an answer is in the name of the run's folder, and the model is loaded by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import models
from eval.errors import EvaluationError
from eval.run.run_plan import answer_all
from eval.tasks.chair.chair_run import plan_captions
from eval.tasks.chair.settings import ChairSettings
from scripts.make_scenes import write_scenes

PICTURES = {2: "COCO_val2014_000000000002.jpg", 1: "COCO_val2014_000000000001.jpg"}


@pytest.fixture
def settings(tmp_path: Path) -> ChairSettings:
    write_scenes(tmp_path, count=2, seed=2014)
    return ChairSettings(model="tiny-llava", device="cpu", data_path=tmp_path / "val2014")


def folder_name(settings: ChairSettings, pictures: dict[int, str] = PICTURES) -> str:
    return plan_captions(settings, pictures).folder(Path(), "2images").path.name


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "official"},
        {"method": ("eah",)},
        {"method": ("baseline",)},
        {"dtype": "bfloat16"},
        {"beam": 2},
        {"sample": True},
        {"max_new_tokens": 64},
        {"batch_size": 4},
        {"seed": 1},
        {"preset": "paper"},
        {"layers": (2,)},
        {"head": 3},
        {"sink_threshold": 0.01},
        {"question": "Describe this image."},
    ],
    ids=lambda change: "-".join(change),
)
def test_what_decides_an_answer_decides_the_folder(
    settings: ChairSettings, change: dict[str, Any]
) -> None:
    assert folder_name(replace(settings, **change)) != folder_name(settings)


@pytest.mark.parametrize(
    "change",
    [{"num_workers": 5}, {"output_dir": Path("x")}, {"device": "cpu"}, {"protocol": "opera"}],
    ids=lambda change: "-".join(change),
)
def test_what_decides_no_answer_does_not(settings: ChairSettings, change: dict[str, Any]) -> None:
    assert folder_name(replace(settings, **change)) == folder_name(settings)


def test_another_order_is_another_folder(settings: ChairSettings) -> None:
    backwards = dict(reversed(PICTURES.items()))

    assert folder_name(settings, backwards) != folder_name(settings)


def test_another_picture_under_the_same_name_is_another_folder(settings: ChairSettings) -> None:
    before = folder_name(settings)
    (settings.pictures_folder() / PICTURES[2]).write_bytes(b"another")

    assert folder_name(settings) != before


def test_other_weights_are_another_folder_wherever_they_lie(
    settings: ChairSettings, tmp_path: Path
) -> None:
    tiny = models.settings.ROOT / "models/tiny-llava"
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in tiny.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    same = replace(settings, checkpoint=str(copied))
    before = folder_name(same)
    weights = next(copied.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")

    assert before == folder_name(settings)
    assert folder_name(same) != before


def test_the_model_is_loaded_as_resolved(
    settings: ChairSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    asked: list[Any] = []

    def load(*arguments: Any, **named: Any) -> None:
        asked.append((arguments, named))
        raise Stopped

    monkeypatch.setattr(models, "load", load)
    settings = replace(
        settings, protocol="official", dtype="bfloat16", checkpoint="models/tiny-llava", device=None
    )
    run = plan_captions(settings, PICTURES)

    with run.folder(tmp_path, "2images") as folder, pytest.raises(Stopped):
        answer_all(run, folder, key=lambda row: ())

    device = run.resolved["device"]
    assert device in {"cpu", "cuda:0"}
    named = {"checkpoint": "models/tiny-llava", "protocol": "official", "dtype": "bfloat16"}
    named |= {"parts": {}, "quantization": None}
    assert asked == [(("tiny-llava",), {**named, "device": device})]


@pytest.mark.parametrize("size", [8, None])
def test_the_released_code_is_run_one_prompt_at_a_time(
    settings: ChairSettings, size: int | None
) -> None:
    released = replace(settings, preset="released-code", batch_size=size)

    with pytest.raises(EvaluationError, match="pass --batch-size 1"):
        plan_captions(released, PICTURES)
    plan_captions(replace(released, batch_size=1), PICTURES)
    plan_captions(replace(released, method=("baseline",)), PICTURES)


def test_pictures_are_read_in_worker_processes_beside_a_gpu_only(settings: ChairSettings) -> None:
    assert plan_captions(settings, PICTURES).plan.num_workers == 0
    assert plan_captions(replace(settings, num_workers=3), PICTURES).plan.num_workers == 3
