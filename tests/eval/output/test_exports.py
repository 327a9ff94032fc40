"""Exports say what the report says, in the keys of the tools that read them."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from eval.evaluate import task_class
from eval.files.answers import Item
from eval.output.exports import FORMATS
from eval.output.report import Report, result_table
from eval.output.run_report import facts_of, score
from eval.run.recorded import RecordedRun, read_run
from eval.tasks.base import Task
from eval.tasks.pope.task import PopeSettings
from tests.eval.small_runs import OLD_RUNS, always_yes, questions, right, write_run

ARMS = {"baseline": always_yes, "eah": right, "eah@layers=2,threshold=0.001": right}


def task_of(run: RecordedRun) -> Task:
    kind = task_class(run.task)
    settings = run.settings
    return kind(kind.settings_class(), kind.protocol_of(settings["protocol"], settings["family"]))


def exported(run: RecordedRun, chosen: str) -> tuple[str, Report]:
    report = score(task_of(run), run, None)
    return FORMATS[chosen](run, report), report


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    """Return a run of two parts in which the baseline always says yes."""
    items = questions(3, ("random", "popular"))
    return read_run(write_run(tmp_path_factory.mktemp("runs") / "opera-0a1b2c3d", ARMS, items))


@pytest.fixture(scope="module")
def one_part(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    return read_run(write_run(tmp_path_factory.mktemp("runs") / "opera-0a1b2c3d", ARMS))


def test_csv_read_back_is_the_report(run: RecordedRun) -> None:
    text, report = exported(run, "csv")

    rows = list(csv.DictReader(io.StringIO(text)))

    assert [(row["arm"], row["part"]) for row in rows] == [
        (arm, part) for arm in ARMS for part in ("random", "popular", "mean")
    ]
    assert [int(row["n"]) for row in rows] == [6, 6, 12] * 3
    for row, result in zip(rows, report.grouped.results, strict=True):
        for name, number in result.numbers.items():
            for end, value in (("", number.value), ("_low", number.low), ("_high", number.high)):
                assert float(row[f"{name}{end}"] or "nan") == pytest.approx(value, nan_ok=True)
    by_hand = rows[0]
    assert float(by_hand["accuracy"]) == float(by_hand["precision"]) == 0.5
    assert float(by_hand["recall"]) == float(by_hand["yes_ratio"]) == 1.0
    assert float(by_hand["f1"]) == pytest.approx(2 / 3)


def test_csv_names_the_ends_of_an_interval(tmp_path: Path) -> None:
    def right_about_one(item: Item) -> str:
        return right(item) if item.image == "0.jpg" else "Yes."

    text, _ = exported(read_run(write_run(tmp_path / "x", {"eah": right_about_one})), "csv")

    (row,) = csv.DictReader(io.StringIO(text))
    assert float(row["accuracy_low"]) == 0.5
    assert float(row["accuracy"]) == pytest.approx(4 / 6)
    assert float(row["accuracy_high"]) == 1.0


def test_a_number_that_is_none_is_empty_in_csv(tmp_path: Path) -> None:
    single = read_run(write_run(tmp_path / "x", {"baseline": right}, questions(1)))

    text, report = exported(single, "csv")

    (row,) = csv.DictReader(io.StringIO(text))
    assert math.isnan(report.grouped.results[0].numbers["accuracy"].low)
    assert (row["accuracy"], row["accuracy_low"], row["accuracy_high"]) == ("1.0", "", "")


def test_latex_has_a_cell_for_each_column_and_no_sign_that_is_a_command(run: RecordedRun) -> None:
    text, report = exported(run, "latex")

    mark, *lines = text.splitlines()
    assert mark == "% written by EAH runs"
    header, rows = result_table(report)
    kinds = lines[0].removeprefix(r"\begin{tabular}{").removesuffix("}")
    assert lines[1] == r"\toprule"
    assert lines[3] == r"\midrule"
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert text.endswith("}\n")
    body = [lines[2], *lines[4:-2]]
    assert len(body) == 1 + len(rows)
    for line, cells in zip(body, (header, *rows), strict=True):
        assert line.endswith(r" \\")
        shown = line.removesuffix(r" \\").split(" & ")
        assert len(shown) == len(kinds) == len(cells)
        plain = line.removesuffix(r" \\").replace(r"\%", "").replace(" & ", "")
        assert not set(plain) & set("\\%&#$_{}~^"), "these are commands"
    assert kinds == "ll" + "r" * (len(header) - 2)
    assert r"yes \%" in body[0]
    assert "50.00 (12.5 to 87.5)" in body[1]


@pytest.mark.parametrize("sign", "&%_#$")
def test_latex_escapes_what_is_a_command(tmp_path: Path, sign: str) -> None:
    items = [Item(i, f"{i}.jpg", "Is it?", "yes", f"code{sign}part") for i in range(2)]
    odd = read_run(write_run(tmp_path / "x", {"baseline": right}, items))

    text, _ = exported(odd, "latex")

    assert f"baseline & code\\{sign}part & " in text


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_llava_lines_have_the_keys_of_its_answer_files(one_part: RecordedRun) -> None:
    lines = lines_of(exported(one_part, "llava")[0])

    assert len(lines) == 3 * 6
    assert all(
        list(line) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
        for line in lines
    )
    assert lines[7] == {
        "question_id": 1, "prompt": "Is there a thing 1?", "text": "Yes, there is.",
        "answer_id": "0a1b2c3d/eah/1", "model_id": "tiny-llava/eah",
        "metadata": {"image": "0.jpg", "category": "random"},
    }  # fmt: skip
    assert len({line["answer_id"] for line in lines}) == len(lines)


def test_ids_of_several_parts_do_not_meet(run: RecordedRun) -> None:
    lines = lines_of(exported(run, "llava")[0])

    assert lines[0]["question_id"] == "random/0"
    assert len({line["answer_id"] for line in lines}) == len(lines) == 3 * 12


def test_lmms_eval_lines_have_the_keys_of_its_samples(run: RecordedRun) -> None:
    lines = lines_of(exported(run, "lmms-eval")[0])

    assert lines[0] == {
        "doc_id": 0,
        "doc": {
            "question_id": 0, "question": "Is there a thing 0?", "answer": "no",
            "category": "random", "image_source": "0.jpg",
        },
        "input": "Is there a thing 0?",
        "target": "no",
        "filtered_resps": "Yes, there is.",
        "model": "tiny-llava/baseline",
        "pope_accuracy": 0.0,
        "score": 0.0,
    }  # fmt: skip
    assert [line["doc_id"] for line in lines] == [*range(12)] * 3
    scores = {
        arm: [line["pope_accuracy"] for line in lines if line["model"].endswith(f"/{arm}")]
        for arm in ARMS
    }
    assert scores["baseline"] == [0.0, 1.0] * 6
    assert scores["eah"] == [1.0] * 12


def test_what_is_neither_right_nor_wrong_has_no_score() -> None:
    old = read_run(next((OLD_RUNS / "chair/tiny-llava").iterdir()))

    lines = lines_of(exported(old, "lmms-eval")[0])

    assert [line["chair_accuracy"] for line in lines] == [None] * 8
    assert lines[0]["target"] == ""


def test_json_holds_the_run_and_all_numbers(run: RecordedRun) -> None:
    text, report = exported(run, "json")

    content = json.loads(text)

    assert content.pop("run") == run.path.name
    assert content.pop("settings") == run.settings
    assert content == json.loads(json.dumps(report.as_dict()))
    assert facts_of(run)["questions"] == run.settings["questions"]
    assert text.endswith("}\n")


def test_texts_of_any_alphabet_are_written_as_they_are(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "x", {"baseline": lambda _: "Yes: ü\u2028猫"}))

    text, _ = exported(run, "llava")

    assert "猫" in text
    assert [json.loads(x)["text"] for x in text.split("\n")[:-1]] == ["Yes: ü\u2028猫"] * 6


def test_every_format_is_written_for_runs_of_version_0_1() -> None:
    for path in OLD_RUNS.rglob("run.json"):
        for chosen in FORMATS:
            assert exported(read_run(path.parent), chosen)[0]


def test_the_parser_of_a_run_is_its_protocols(run: RecordedRun) -> None:
    assert task_of(run).facts() == {"parser": "opera"}
    assert PopeSettings().parser is None
