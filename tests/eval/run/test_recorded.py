"""Runs as they lie on the disk: today's, those of version 0.1, damaged ones, and by name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Answer, Finding, Item
from eval.run.arm_folder import ArmFolder
from eval.run.costs import BatchCost
from eval.run.recorded import find_run, read_run, runs_below
from tests.eval.small_runs import OLD_RUNS, always_yes, questions, right, state_of, write_run

OLD_POPE = OLD_RUNS / "pope/tiny-llava/opera-all-beam1-28057fe1"
OLD_CHAIR = OLD_RUNS / "chair/tiny-llava/opera-4images-beam1-096b581c"


def test_a_run_is_read_with_its_arms(tmp_path: Path) -> None:
    path = write_run(tmp_path / "opera-random-0a1b2c3d", {"eah": right, "baseline": always_yes})

    run = read_run(path)

    assert (run.task, run.total, run.hash, run.begun, run.old) == (
        "pope", 6, "0a1b2c3d", "2026-01-02", False,
    )  # fmt: skip
    assert list(run.arms) == ["baseline", "eah"]
    assert [answer.item for answer in run.arms["eah"].answers] == questions()
    assert run.arms["eah"].answers[0].findings == (Finding(1, 5, 30, 64, False),)
    assert run.arms["eah"].costs == [BatchCost("random/0+6", "cpu", 10, 10, 1.0, 6, 4)]
    assert run.arms["eah"].info["code"] == "c0de"
    assert list(read_run(path, ["eah"]).arms) == ["eah"]


def test_questions_are_counted_over_all_parts(tmp_path: Path) -> None:
    items = questions(parts=("random", "popular"))

    assert read_run(write_run(tmp_path / "x", {"baseline": right}, items)).total == 12


def test_an_unfinished_arm_has_no_part_in_the_numbers(tmp_path: Path) -> None:
    path = write_run(tmp_path / "x", {"baseline": right, "eah": right})
    answers = path / "arms/eah/answers.jsonl"
    answers.write_text("".join(answers.read_text().splitlines(keepends=True)[:-1]))

    run = read_run(path)

    assert list(run.finished()) == list(run.answers()) == ["baseline"]
    assert len(run.arms["eah"].answers) == 5
    with pytest.raises(EvaluationError, match=r"no arm of .* is finished; run the command in"):
        read_run(path, ["eah"]).answers()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, "is not a run folder, since it has no run.json"),
        ("run.json", "{}", "run.json is damaged, its 'settings' is None, not an object; copy it"),
        ("run.json", '{"settings": {"benchmark": 5, "model": "x"}}', "is 5, not a text; copy it"),
        ("arms/eah/arm.json", '{"name": "eah", "started": "x", "eah": 1}', "not an object or null"),
        ("arms/eah/arm.json", '{"name": 5}', "is 5, not a text; run the command that made it with"),
        ("run.json", '{"settings"', "run.json is damaged"),
        ("arms/eah/arm.json", "[]", "arm.json is damaged, it is not a JSON object"),
        ("arms/eah/answers.jsonl", "{}\n", "is not a recorded answer"),
        ("arms/eah/answers.jsonl", "{\n", "answers.jsonl, line 1 is not JSON"),
    ],
)
def test_a_damaged_run_is_one_sentence_and_not_listed(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    path = write_run(tmp_path / "x", {"eah": right})
    write_run(tmp_path / "y", {"baseline": right})
    (path / name).unlink()
    if content is not None:
        (path / name).write_text(content)

    with pytest.raises(EvaluationError, match=message):
        read_run(path)
    assert [run.path.name for run in runs_below(tmp_path)] == ["y"]


def test_a_folder_that_can_not_be_looked_into_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "open/x-11111111", {"baseline": right})
    write_run(tmp_path / "closed/x-22222222", {"baseline": right})
    own, errors = os.scandir, list[EvaluationError]()

    def refusing(path: str) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return own(path)

    monkeypatch.setattr(os, "scandir", refusing)

    (found,) = runs_below(tmp_path, errors.append)
    assert found.path.name == "x-11111111"
    assert [str(error) for error in errors] == [
        f"{tmp_path / 'closed'} can't be read: Permission denied"
    ]


def test_reading_changes_nothing(tmp_path: Path) -> None:
    path = write_run(tmp_path / "x", {"baseline": right, "eah": right})
    for name in ("answers", "costs"):
        with (path / f"arms/eah/{name}.jsonl").open("a") as file:
            file.write('{"id": 7, "ima')  # another process may be writing it
    before = state_of(path)

    assert len(read_run(path).arms["eah"].answers) == 6
    assert state_of(path) == before


def test_a_run_of_version_0_1_is_read() -> None:
    before = state_of(OLD_RUNS)

    run = read_run(OLD_POPE)

    assert (run.task, run.total, run.hash, run.old) == ("pope", 18, "28057fe1", True)
    assert run.begun.startswith("2026-11-27T")
    assert list(run.finished()) == ["baseline", "eah", "vcd"]
    lines = (OLD_POPE / "predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for name, arm in run.arms.items():
        mine = [row for row in rows if row["method"] == name]
        for row, answer in zip(mine, arm.answers, strict=True):
            item = Item(row["question_id"], row["image"], row["question"], row["label"],
                        row["pope_type"])  # fmt: skip
            found = tuple(Finding(**one) for one in row.get("eah", ()))
            assert answer == Answer(item, row["answer"], row["finished"], found)
    assert all(answer.findings for answer in run.arms["eah"].answers)
    assert len(run.arms["vcd"].costs) == 3
    assert sum(cost.tokens for cost in run.arms["vcd"].costs) > 0
    assert state_of(OLD_RUNS) == before


def test_captions_of_version_0_1_are_read() -> None:
    run = read_run(OLD_CHAIR)

    captions = [json.loads(x) for x in (OLD_CHAIR / "captions_eah.jsonl").read_text().splitlines()]
    assert (run.task, run.total, run.old) == ("chair", 4, True)
    assert [(answer.item.id, answer.text) for answer in run.arms["eah"].answers] == [
        (row["image_id"], row["caption"]) for row in captions
    ]


def test_old_answers_and_costs_that_were_cut_off_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "old"
    shutil.copytree(OLD_POPE, path)
    with (path / "costs.jsonl").open("a") as file:
        file.write('{"method": "eah", "ba')
    assert len(read_run(path).arms["eah"].costs) == 3

    with (path / "predictions.jsonl").open("a") as file:
        file.write('{"method": "eah"}\n')
    with pytest.raises(
        EvaluationError, match=r"predictions\.jsonl, line 55 is not a recorded answer"
    ):
        read_run(path)


def test_runs_are_found_by_folder_name_and_hash(tmp_path: Path) -> None:
    names = ["opera-random-0a1b2c3d", "opera-all-0a1bffff", "official-all-1234abcd"]
    for name in names:
        write_run(tmp_path / "pope/tiny-llava" / name, {"baseline": right})

    def found(name: str) -> str:
        return find_run(name, tmp_path).path.name

    assert found(str(tmp_path / "pope/tiny-llava" / names[0])) == names[0]
    assert found(names[1]) == names[1]
    assert found("0a1b2") == names[0]
    assert found("1") == names[2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0a1b", "^2 runs in .*'0a1b'.*: pass a folder, or enough .*; opera-all-0a1bffff, opera"),
        ("ffff", "^no run in .*'ffff'.*runs.py list shows all$"),
        ("", "^. is not a run folder"),
        ("random", "^no run in"),
        ("b2c3d", "^no run in"),
    ],
)  # fmt: skip
def test_a_name_of_none_or_several_runs_is_one_sentence(
    tmp_path: Path, name: str, message: str
) -> None:
    for folder in ("opera-random-0a1b2c3d", "opera-all-0a1bffff"):
        write_run(tmp_path / folder, {"baseline": right})

    with pytest.raises(EvaluationError, match=message):
        find_run(name, tmp_path)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="is not a run folder"):
        find_run(str(tmp_path), tmp_path)


def test_an_arm_that_was_set_aside_is_no_arm(tmp_path: Path) -> None:
    path = write_run(tmp_path / "x", {"baseline": right, "eah": right})
    ArmFolder(path, "eah").set_aside()

    assert list(read_run(path).arms) == ["baseline"]
    assert len(list(runs_below(tmp_path))) == 1
