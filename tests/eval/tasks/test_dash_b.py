"""DASH-B: the reference scorer's numbers, and its lists and folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.output.report import report_of
from eval.tasks.dash_b import DashB
from eval.tasks.yes_no.settings import YesNoSettings


def test_numbers_and_labels_are_those_of_the_reference_scorer(shared: Path) -> None:
    path = shared / "golden/benchmarks/dash_b.json"
    golden = json.loads(path.read_text(encoding="utf-8"))
    task = DashB(YesNoSettings())
    answers = [
        Answer(Item(k, row["img_id"], f"Is it {row['object_name']}?", row["gt"]), text)
        for k, (row, text) in enumerate(zip(golden["rows"], golden["answers"], strict=True))
    ]

    (found,) = report_of(task, {"baseline": answers}).grouped.results

    assert [task.read(answer) for answer in answers] == golden["parsed"]
    assert None in golden["parsed"]
    names = {"accuracy": "ACC", "tnr": "TNR", "tpr": "TPR", "harmonic_mean": "Harmonic Mean"}
    for name, theirs in names.items():
        value = found.numbers[name].value
        assert value == pytest.approx(golden["reference"][theirs], abs=1e-12)


def lists(folder: Path, **sides: object) -> Path:
    for side, content in sides.items():
        (folder / f"dash_benchmark_{side}.json").write_text(json.dumps(content))
    return folder


def test_questions_are_of_both_lists_and_a_limit_is_of_each(tmp_path: Path) -> None:
    folder = lists(tmp_path, neg={"coco": {"ice cream": ["1.png", "2.png"]}},
                   pos={"coco": {"ox": ["1.png"]}})  # fmt: skip

    items = DashB(YesNoSettings(data_path=folder)).items()
    first = DashB(YesNoSettings(data_path=folder, limit=1)).items()

    assert [(item.image, item.label, item.groups["object"]) for item in items] == [
        ("neg/coco/ice cream/1.png", "no", "ice cream"),
        ("neg/coco/ice cream/2.png", "no", "ice cream"),
        ("pos/coco/ox/1.png", "yes", "ox"),
    ]
    wanted = "Can you see a ox in this image? Please answer only with yes or no."
    assert items[2].question == wanted  # "a", never "an", as the benchmark asks
    assert [item.label for item in first] == ["no", "yes"]


@pytest.mark.parametrize(
    ("neg", "said"),
    [
        ({"coco": {"ox": "1.png"}}, "has '1.png' for 'coco', 'ox', but needs a list"),
        ({"coco": ["1.png"], "x": 5}, "has 5 for 'x', '', but needs a list"),
        ({}, "dash_benchmark_pos.json does not exist; pass the folder images/"),
    ],
)
def test_missing_and_damaged_lists_are_refused(tmp_path: Path, neg: object, said: str) -> None:
    task = DashB(YesNoSettings(data_path=lists(tmp_path, neg=neg)))

    with pytest.raises(EvaluationError) as error:
        task.items()

    assert said in str(error.value)


def saved(folder: Path, rows: list[dict[str, str]]) -> Path:
    path = folder / "saved.json"
    path.write_text(json.dumps(rows))
    return path


def test_answers_without_ids_are_told_apart_by_the_folders_of_their_pictures(
    tmp_path: Path,
) -> None:
    """Both sides have a 1.png and the same question about it."""
    folder = lists(tmp_path, neg={"coco": {"ox": ["1.png"]}}, pos={"coco": {"ox": ["1.png"]}})
    task = DashB(YesNoSettings(data_path=folder))
    question = task.items()[0].question
    rows = [{"image": f"images/{side}/coco/ox/1.png", "question": question, "response": text}
            for side, text in (("pos", "yes"), ("neg", "no"))]  # fmt: skip

    (answers,) = task.read_saved(saved(tmp_path, rows), task.items()).arms.values()

    assert [(one.item.image[:3], one.text) for one in answers] == [("neg", "no"), ("pos", "yes")]
    bare = [{**row, "image": "1.png"} for row in rows]
    with pytest.raises(EvaluationError) as error:
        task.read_saved(saved(tmp_path, bare), task.items())
    assert "could be any of neg/coco/ox/1.png, pos/coco/ox/1.png" in str(error.value)
