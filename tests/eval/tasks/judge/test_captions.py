"""The answers of a model: made once, taken from the runs of chair_eval.py that have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval import chair_eval
from eval.gpt4v_eval import main
from scripts.scenes.make import write_scenes
from tests.eval.judge_inputs import metrics_of, write_config
from tests.eval.judge_stub import MODEL, Stub, serve

pytestmark = pytest.mark.usefixtures("judge_key")

COUNT = 4


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=COUNT, seed=2014)
    return folder


@pytest.fixture
def model_flags(scenes: Path, tmp_path: Path) -> list[str]:
    return [
        "--model", "tiny-llava", "--gpu-id", "-1", "--data-path", str(scenes / "val2014"),
        "--max-new-tokens", "16", "--output-dir", str(tmp_path / "runs"),
    ]  # fmt: skip


def chair_runs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "runs/chair/tiny-llava").iterdir())


def judge(flags: list[str], tmp_path: Path) -> Stub:
    with serve(Stub()) as stub:
        config = write_config(tmp_path, stub.url)
        assert main([*flags, "--judge-config", str(config)]) == 0
    return stub


def test_a_model_s_answers_are_made_and_judged(
    model_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = judge(model_flags, tmp_path)

    (run,) = chair_runs(tmp_path)
    captions = {name: [json.loads(line)["caption"] for line in
                       (run / f"report/captions_{name}.jsonl").read_text().splitlines()]
                for name in ("baseline", "eah")}  # fmt: skip
    (judged,) = (tmp_path / "runs/judge" / MODEL).iterdir()
    # A small model says the same of some pictures with EAH and without; these are not judged.
    pairs = [pair for pair in zip(*captions.values(), strict=True) if pair[0] != pair[1]]
    assert 0 < len(pairs) <= COUNT
    assert metrics_of(judged)["judgements"]["read"] == 2 * len(pairs)
    asked = "".join(call.text for call in stub.calls)
    assert all(f"]\n{text}\n[End" in asked for pair in pairs for text in pair)
    assert "eah against baseline on 4 pictures" in capsys.readouterr().out


def test_captions_of_a_chair_run_are_taken(
    model_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chair_eval.main([*model_flags, "--batch-size", "3"]) == 0
    monkeypatch.setattr("models.load", lambda *_, **__: pytest.fail("the model was loaded"))

    stub = judge(
        [*model_flags, "--num-images", "2", "--report", str(tmp_path / "r.html")], tmp_path
    )

    assert len(chair_runs(tmp_path)) == 1
    (run,) = (tmp_path / "runs/judge" / MODEL).iterdir()
    pictures = metrics_of(run)["pictures"]
    assert pictures["compared"] == 2
    assert 0 < pictures["judged"] == 2 - pictures["equal"]
    first_two = (chair_runs(tmp_path)[0] / "report/image_ids.txt").read_text().split()[:2]
    assert {
        str(row["image_id"])
        for row in map(json.loads, (run / "judgements.jsonl").read_text().splitlines())
    } <= set(first_two)
    assert len(stub.calls) == 2 * pictures["judged"]
    assert metrics_of(run)["judgements"]["read"] == 2 * pictures["judged"]
    assert (tmp_path / "r.html").read_text().count("data:image/jpeg") == pictures["judged"]


def test_only_the_method_that_no_run_has_is_asked(model_flags: list[str], tmp_path: Path) -> None:
    assert chair_eval.main([*model_flags, "--method", "baseline"]) == 0

    judge(model_flags, tmp_path)

    (run,) = chair_runs(tmp_path)
    assert sorted(path.name for path in (run / "arms").iterdir()) == ["baseline", "eah"]
    resumed = [json.loads((run / "arms" / arm / "arm.json").read_text()).get("resumed")
               for arm in ("baseline", "eah")]  # fmt: skip
    assert resumed == [None, None]


@pytest.mark.parametrize(
    "other",
    [["--beam", "2"], ["--question", "What is there?"]],
    ids=lambda words: words[0],
)
def test_captions_of_another_kind_are_not_taken(
    model_flags: list[str], tmp_path: Path, other: list[str]
) -> None:
    assert chair_eval.main([*model_flags, *other]) == 0

    judge(model_flags, tmp_path)

    assert len(chair_runs(tmp_path)) == 2


def test_captions_of_other_settings_of_eah_are_another_arm(
    model_flags: list[str], tmp_path: Path
) -> None:
    assert chair_eval.main([*model_flags, "--preset", "paper"]) == 0

    judge(model_flags, tmp_path)

    (run,) = chair_runs(tmp_path)
    arms = sorted(path.name for path in (run / "arms").iterdir())
    assert arms == ["baseline", "eah", "eah@preset=paper"]


def test_captions_of_other_pictures_with_the_same_names_are_not_taken(
    model_flags: list[str], tmp_path: Path
) -> None:
    write_scenes(tmp_path / "other", count=COUNT, seed=7)
    other = ["--data-path", str(tmp_path / "other/val2014")]
    assert chair_eval.main([*model_flags, *other]) == 0

    judge(model_flags, tmp_path)

    assert len(chair_runs(tmp_path)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "eah"], "exactly two methods are needed"),
        (["--model", "tiny-lava"], "did you mean 'tiny-llava'"),
        (["--data-path", "nowhere"], "--data-path nowhere is not a folder"),
        (["--scale_factor", "50"], "OPERA is a beam search"),
    ],
)
def test_bad_input_is_one_sentence(
    model_flags: list[str],
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9/v1")

    assert main([*model_flags, *words, "--judge-config", str(config)]) == 2

    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]


def test_arms_with_decoding_methods_are_taken_from_runs_with_their_settings(
    model_flags: list[str], tmp_path: Path
) -> None:
    arms = ["--method", "baseline", "eah", "opera"]
    given = [*model_flags, "--beam", "2"]
    assert chair_eval.main([*given, *arms, "--scale_factor", "40"]) == 0
    assert len(chair_runs(tmp_path)) == 1

    judge([*given, "--method", "baseline", "opera", "--scale_factor", "40"], tmp_path)
    assert len(chair_runs(tmp_path)) == 1

    judge([*given, "--method", "baseline", "opera", "--scale_factor", "60"], tmp_path)
    (run,) = chair_runs(tmp_path)
    assert (run / "arms/opera@scale_factor=60/answers.jsonl").is_file()
