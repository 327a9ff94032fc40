"""Run folders: which arms they have, in which order, whether they are complete, what made them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Answer, Caption, Finding, Item
from eval.files.storage import dump_lines
from eval.tasks.chair.captions import captions_hash, origin_of, read_captions

SETTINGS: dict[str, Any] = {
    "model": "llava-1.5", "protocol": "opera", "benchmark": "chair", "question": "Describe.",
    "decoding": {"num_beams": 5, "do_sample": False, "max_new_tokens": 512},
}  # fmt: skip
WORDS = "llava-1.5, protocol opera, 5 beam(s), at most 512 tokens, question 'Describe.'"


def lines(arm: str, ids: Iterable[int]) -> str:
    found = (Finding(15, 3, 2, 576, False),) if arm == "eah" else ()
    return dump_lines(
        Answer(Item(i, f"{i}.jpg", "Describe."), f"{arm}{i}", True, found).as_record() for i in ids
    )


def write_run(folder: Path, arms: dict[str, Iterable[int]], /, **content: object) -> Path:
    for arm, ids in arms.items():
        (folder / "arms" / arm).mkdir(parents=True)
        info = {"name": arm, "started": "2026-11-27T03:31:02+00:00"}
        (folder / "arms" / arm / "arm.json").write_text(json.dumps(info))
        (folder / "arms" / arm / "answers.jsonl").write_text(lines(arm, ids))
    (folder / "run.json").write_text(json.dumps({"settings": SETTINGS} | content))
    return folder


def test_arms_are_read_the_baseline_first(tmp_path: Path) -> None:
    arms: dict[str, Iterable[int]] = {"vcd@alpha=0.5,beta=0.1": [2, 1], "baseline": [2, 1],
                                      "eah": [2, 1]}  # fmt: skip
    run = write_run(tmp_path, arms)

    assert list(read_captions(run)) == ["baseline", "eah", "vcd@alpha=0.5,beta=0.1"]
    assert read_captions(run)["eah"] == [Caption(2, "eah2"), Caption(1, "eah1")]


def test_parts_of_several_processes_belong_together(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"baseline": [1], "eah": [1, 2, 3]})
    part = run / "arms/baseline/answers.10.jsonl"
    part.write_text(lines("baseline", [3]))
    (run / "arms/baseline/answers.2.jsonl").write_text(lines("baseline", [2, 1]))

    assert [c.image_id for c in read_captions(run)["baseline"]] == [1, 2, 3]
    content = [path.read_bytes() for path in (
        run / "arms/baseline/answers.jsonl", run / "arms/baseline/answers.2.jsonl", part,
        run / "arms/eah/answers.jsonl",
    )]  # fmt: skip
    assert captions_hash(run) == hashlib.sha256(b"".join(content)).hexdigest()


def test_reading_changes_nothing_in_a_run_that_goes_on(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"baseline": [1]})
    path = run / "arms/baseline/answers.jsonl"
    path.write_text(path.read_text() + '{"id": 2, "ima')
    before = path.read_bytes()

    assert [c.image_id for c in read_captions(run)["baseline"]] == [1]
    assert path.read_bytes() == before


@pytest.mark.parametrize("listed", [[], ["baseline", "eah", "vcd"]])
def test_an_incomplete_arm_is_named(tmp_path: Path, listed: list[str]) -> None:
    run = write_run(tmp_path, {"baseline": range(9), "eah": [0, 1, 2]}, arms=listed)

    with pytest.raises(EvaluationError) as raised:
        read_captions(run)
    assert str(raised.value) == (
        f"{run} is incomplete: eah lacks 6 of 9 pictures, the first is 3; run the command that "
        "made it again"
    )


def test_unusable_run_folders_are_one_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"baseline": []})
    with pytest.raises(EvaluationError, match="has no answers"):
        read_captions(run)

    path = run / "arms/baseline/answers.jsonl"
    path.write_text('{"id": 1}\n')
    with pytest.raises(EvaluationError, match=r"answers\.jsonl, answer 1 is not a recorded answer"):
        read_captions(run)

    path.write_text(lines("baseline", [1]).replace('"id": 1', '"id": -1'))
    with pytest.raises(EvaluationError, match="baseline: -1 is not an image id"):
        read_captions(run)

    (run / "run.json").unlink()
    with pytest.raises(EvaluationError, match=r"is not a run folder, since it has no run\.json"):
        read_captions(run)


@pytest.mark.parametrize("place", [".", "captions_eah.jsonl", "report/captions_eah.jsonl"])
def test_captions_say_which_run_made_them(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", {"baseline": [1]})
    (run / "report").mkdir()
    if place != ".":
        (run / place).write_text("")

    assert origin_of(run / place) == ("llava-1.5", WORDS)
    monkeypatch.chdir((run / place).parent)
    assert origin_of(Path((run / place).name)) == ("llava-1.5", WORDS)


def test_captions_without_a_captioning_run_have_no_origin(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"model": "llava-1.5"}}))

    assert origin_of(tmp_path / "captions.jsonl") is None
    assert origin_of(tmp_path / "a/b/captions.jsonl") is None
    assert origin_of(tmp_path / "a/b") is None


def test_sampled_captions_are_said_to_be(tmp_path: Path) -> None:
    decoding = SETTINGS["decoding"] | {"do_sample": True}
    settings = SETTINGS | {"decoding": decoding}
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings}))

    origin = origin_of(tmp_path)

    assert origin is not None
    assert "protocol opera, nucleus sampling, at most 512 tokens" in origin.words
