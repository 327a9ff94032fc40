"""POPE on A-OKVQA and GQA, and RePOPE: reference numbers, and how saved answers are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.evaluate import main, task_class
from eval.files.answers import Answer, Item
from eval.output.report import report_of
from eval.tasks.pope.files import TypedSettings, TypedTask
from eval.tasks.pope.others import RePope
from eval.tasks.pope.questions import POPE_TYPES

NAMES = ("accuracy", "precision", "recall", "f1", "yes_ratio")


def typed(name: str, protocol: str = "official", **settings: Any) -> TypedTask:
    kind: Any = task_class(name)
    found: TypedTask = kind(TypedSettings(**settings), kind.protocol_of(protocol, ""))
    return found


@pytest.mark.parametrize("name", ["aokvqa", "gqa"])
def test_numbers_are_those_of_popes_scorer_on_its_other_sets(shared: Path, name: str) -> None:
    path = shared / "golden/benchmarks/pope_aokvqa_gqa.json"
    sets = json.loads(path.read_text(encoding="utf-8"))["sets"]
    folder = shared / "benchmarks/pope-aokvqa-gqa"
    task = typed(f"pope-{name}", pope_path=folder, pope_type=("all",))
    items = task.items()
    assert len(items) == sum(task.expected.values()) == 9000
    answers = []
    for kind in POPE_TYPES:
        said = sets[f"{name}_{kind}"]["answers"]
        asked = [item for item in items if item.part == kind]
        answers += [Answer(item, said["texts"][at])
                    for item, at in zip(asked, said["index"], strict=True)]  # fmt: skip

    results = {r.part: r.numbers for r in report_of(task, {"a": answers}).grouped.results}

    assert list(results) == [*POPE_TYPES, "mean"]
    for kind in POPE_TYPES:
        reference = sets[f"{name}_{kind}"]["reference"]
        found = {key: results[kind][key].value for key in NAMES}
        assert found == pytest.approx({key: reference[key] for key in NAMES}, abs=1e-12)


def test_with_the_word_parser_numbers_are_vlmevalkits(shared: Path) -> None:
    """A row may be of several categories, in each of which it counts, overall too."""
    path = shared / "golden/benchmarks/pope_aokvqa_gqa.json"
    case = json.loads(path.read_text(encoding="utf-8"))["sets"]["vlmevalkit POPE, invented"]
    rows = [
        (part, label.lower(), case["answers"]["texts"][at])
        for part, label, at in zip(
            case["category"], case["label"], case["answers"]["index"], strict=True
        )
    ]
    task = typed("pope-gqa", parser="word")
    for part, expected in case["vlmevalkit"].items():
        answers = [
            Answer(Item(f"{k}/{one}", f"{k}.jpg", "?", label, "one"), text)
            for k, (parts, label, text) in enumerate(rows)
            for one in parts.split(",")
            if part in ("Overall", one)
        ]
        (found,) = report_of(task, {"a": answers}).grouped.results
        numbers = {name: 100 * number.value for name, number in found.numbers.items()}
        theirs = {"accuracy": "acc", "precision": "precision", "recall": "recall", "f1": "Overall"}
        for name, key in theirs.items():
            assert numbers[name] == pytest.approx(expected[key], abs=1e-9), (part, name)


# RePOPE.


def repope_files(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "coco_repope_random.json").write_text(text)
    return folder


@pytest.mark.parametrize("kind", POPE_TYPES)
def test_numbers_are_those_of_repopes_scorer_on_answers_to_pope(
    shared: Path, tmp_path: Path, kind: str
) -> None:
    """Ids of the corrected file count from elsewhere: picture and text alone find a question."""
    golden = json.loads((shared / "golden/benchmarks/repope.json").read_text(encoding="utf-8"))
    case = golden["splits"][kind]
    changes = case["corrections (null: removed)"]
    with (shared / f"pope/coco_pope_{kind}.json").open(encoding="utf-8") as file:
        questions = [json.loads(line) for line, _ in zip(file, case["labels"], strict=False)]
    said = [case["answers"]["texts"][at] for at in case["answers"]["index"]]
    kept = [
        {**row, "question_id": 5000 - row["question_id"], "label": changes.get(at, label)}
        for row, at, label in zip(
            questions, map(str, case["question_ids"]), case["labels"], strict=True
        )
        if changes.get(at, label) is not None
    ]
    folder = repope_files(tmp_path / "repope", kept)
    answers = [{"question_id": row["question_id"], "question": row["text"], "image": row["image"],
                "text": text} for row, text in zip(questions, said, strict=True)]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(answers))

    task = typed("repope", pope_path=folder)
    found = task.read_saved(tmp_path / "a.json", task.items()).arms["answers"]
    (result,) = report_of(task, {"a": found}).grouped.results

    assert len(found) == len(kept) < len(answers)
    reference = case["reference"]["RePOPE"]
    theirs = {"accuracy": "ACC", "precision": "Precision", "recall": "Recall", "f1": "F1",
              "yes_ratio": "Yes Ratio"}  # fmt: skip
    for name, key in theirs.items():
        assert result.numbers[name].value == pytest.approx(reference[key], abs=1e-12), name


def row(at: int, thing: str, image: str = "a.jpg", label: str = "yes") -> dict[str, Any]:
    return {"question_id": at, "image": image, "text": f"Is there a {thing}?", "label": label}


def test_answers_to_other_questions_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = repope_files(tmp_path / "q", [row(9, "cat"), row(1, "dog"), row(2, "cup", "b.jpg")])
    # The id of the cat's question is that of the dog's there; the bus was removed.
    answers = [
        {"question_id": 1, "question": "Is there a CAT?\nSay.", "image": "a.jpg", "text": "no"},
        {"question_id": 2, "question": "Is there a dog?", "image": "x/a.jpg", "text": "yes"},
        {"question_id": 3, "question": "Is there a bus?", "image": "a.jpg", "text": "no"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(answers))
    given = [
        *("--task", "repope", "--pope-path", str(folder), "--answers", str(tmp_path / "a.json")),
        *("--output-dir", str(tmp_path / "runs"), "--json", str(tmp_path / "n.json")),
    ]

    assert main(given) == 0

    content = json.loads((tmp_path / "n.json").read_text())
    (result,) = content["results"]
    assert (result["n"], result["numbers"]["accuracy"]["value"]) == (2, 0.5)
    assert content["coverage"] == {
        "answered": 2, "expected": 8185, "parts": 1, "expected_parts": 3,
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert (
        "answered: 2 of 8,185 questions, in 1 of 3 parts; unknown answers: answers 0.00 %" in shown
    )
    assert "scored with the formulas of RePOPE's eval_utils.py; positive class: yes" in shown


def test_answers_that_do_not_say_what_they_are_to_are_refused(tmp_path: Path) -> None:
    task = typed("repope", pope_path=repope_files(tmp_path / "q", [row(1, "cat")]))
    for rows, said in (
        ([{"question_id": 1, "text": "yes"}], "lacks its picture or question, which are needed"),
        ([{"image": "b.jpg", "question": "Is there a cat?", "text": "yes"}], "no answer to any"),
        ([{"image": "a.jpg", "question": "Is there a cat?", "text": "yes"}] * 2, "the same quest"),
    ):
        (tmp_path / "a.json").write_text(json.dumps(rows))
        with pytest.raises(EvaluationError, match=said):
            task.read_saved(tmp_path / "a.json", task.items())


def test_published_sizes_are_the_papers() -> None:
    assert RePope.expected == {"random": 2774, "popular": 2727, "adversarial": 2684}
