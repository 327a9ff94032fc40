"""What `eval/sinks.py` is asked for, and what is refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eval import sinks
from eval.analysis.flags import flags, model_names, settings_of
from eval.analysis.questions import items_of, shown_pictures
from eval.analysis.settings import SinkSettings
from eval.errors import EvaluationError
from eval.files.answers import Item
from scripts.scenes.make import write_scenes


def settings(words: str) -> list[SinkSettings]:
    return settings_of(flags("What.\n\n    example\n\n").parse(words.split()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--captions --pope-type all", "two kinds of answers; give one of them"),
        ("--gammas 0.2 0.2", "name at least one, each once"),
        ("--gammas 1.5", "a density is a share in (0, 1]"),
        ("--num-images 0", "num_images=0, but at least 1 is needed"),
        ("--choose-on 0 --captions --ablate layers=0,1", "choose_on=0, but at least 1"),
        ("--choose-on 5 --captions", "--choose-on needs --ablate"),
        ("--ablate layers=0,1", "--ablate needs --captions or --pope-type"),
        ("--coco_path x", "--coco-path needs --captions"),
        ("--ground-truth x", "--ground-truth needs --captions"),
        ("--pope-path x", "--pope-path needs --pope-type"),
        ("--analyzer nltk", "--analyzer needs --captions"),
        ("--build-images 7 --pope-type all", "--build-images needs --build-from"),
        ("--beam 5", "--beam needs --captions or --pope-type"),
        ("--sample", "--sample needs --captions or --pope-type"),
        ("--max-new-tokens 4", "--max-new-tokens needs --captions or --pope-type"),
        ("--build-from x", "--build-from needs --pope-type"),
        ("--question What? --pope-type all", "--question and --pope-type, which has its own"),
        ("--image-ids x --pope-type all", "--image-ids and --pope-type, which has questions"),
        ("--image-ids x --num-images 3", "give one of the two"),
        ("--options method=[eah]", "eval/sinks.py does by --ablate alone"),
        ("--options repeats=3", "eval/sinks.py does by --ablate alone"),
        ("--model tiny-llava --model tiny-llava", "names the same model twice"),
        ("--model hf --model tiny-llava --checkpoint x", "2 models and 1 checkpoints"),
        ("--model tiny-lava", "did you mean 'tiny-llava'"),
        ("--THRES 2", "a mean attention weight is in (0, 1)"),
        ("--THRES 0.002 2 --data-path docs", "a mean attention weight is in (0, 1)"),
        ("--THRES 0.002 0.002 --data-path docs", "names a threshold twice"),
        ("--pope-type radnom --data-path docs", "did you mean 'random'"),
        ("--data-path nowhere", "--data-path nowhere is not a folder"),
    ],
)
def test_wrong_settings_are_one_sentence(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sinks.main(words.split()) == 2

    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("sinks: error: ")
    assert message in said


def test_several_models_share_all_but_their_checkpoints() -> None:
    found = settings("--model hf --checkpoint a/b --model hf --checkpoint c/b --THRES 0.1 0.2 0.3")

    assert [(one.model, one.checkpoint) for one in found] == [("hf", "a/b"), ("hf", "c/b")]
    assert {(one.sink_threshold, one.thresholds) for one in found} == {(0.1, (0.2, 0.3))}
    assert model_names(found) == ["b", "b (2)"]
    assert model_names(settings("--model llava-1.5 --model shikra")) == ["llava-1.5", "shikra"]
    assert [one.model for one in settings("")] == ["llava-1.5"]


def test_eahs_settings_are_the_models_with_what_flags_change() -> None:
    (tiny,) = settings("--model tiny-llava")
    (changed,) = settings("--model llava-1.5 --LAYER_NUM 0 2 --THRES 0.001 0.003 --receivers 4")

    assert (tiny.eah().rule, tiny.eah().layers, tiny.eah().threshold) == ("scale_free", (1,), 1.25)
    assert (changed.eah().layers, changed.eah().threshold) == ((0, 2), 0.001)
    assert changed.eah().receivers == 4


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=12, seed=3)
    return folder


def of(scenes: Path, **changes: Any) -> SinkSettings:
    return SinkSettings(model="tiny-llava", data_path=scenes / "val2014", **changes)


def test_pope_asks_about_as_many_pictures_as_wanted_and_all_of_their_questions(
    scenes: Path, tmp_path: Path
) -> None:
    built = {"pope_type": ("all",), "pope_path": tmp_path}
    built |= {"build_from": scenes / "annotations/instances_val2014.json"}
    every = items_of(of(scenes, **built, num_images=100))
    some = items_of(of(scenes, **built, num_images=5))
    again = {**built, "pope_path": tmp_path / "again"}
    others = items_of(of(scenes, **again, num_images=5, seed=7))

    names = {item.image for item in some}
    assert len(names) == 5
    assert some == [item for item in every if item.image in names]
    assert {item.image for item in others} != names


def test_as_many_pictures_are_drawn_as_are_reported_and_chosen_on(scenes: Path) -> None:
    items = items_of(of(scenes, num_images=6, choose_on=4, captions=True, ablate=("layers=0,1",)))

    assert len({item.image for item in items}) == len(items) == 10


def test_pictures_to_show_are_among_those_looked_at() -> None:
    items = [Item(at, f"{at // 2}.jpg", f"{at}?") for at in range(6)]

    assert shown_pictures(SinkSettings(), items) == [items[0]]
    named = SinkSettings(pictures=("2.jpg", "0.jpg", "2.jpg"))
    assert shown_pictures(named, items) == [items[4], items[0]]
    with pytest.raises(
        EvaluationError, match=r"--pictures 9.jpg is not among the 3 observed pictures"
    ):
        shown_pictures(SinkSettings(pictures=("9.jpg",)), items)
