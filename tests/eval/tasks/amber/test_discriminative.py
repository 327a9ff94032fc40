"""AMBER's yes/no half: numbers of the reference scorer, other scorers' too, and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.output.report import report_of
from eval.tasks.amber.discriminative import AmberDiscriminative
from eval.tasks.yes_no.settings import PartSettings

# As the reference spells them.
SECTIONS = {
    "Descriminative Task": "all", "Exsitence": "existence", "Attribute": "attribute",
    "State": "state", "Number": "number", "Action": "action", "Relation": "relation",
}  # fmt: skip
TYPES = {
    "discriminative-hallucination": "existence", "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number", "discriminative-attribute-action": "action",
    "discriminative-relation": "relation", "relation": "relation",
}  # fmt: skip


def amber(folder: Path, **settings: Any) -> AmberDiscriminative:
    task = AmberDiscriminative
    return task(PartSettings(questions=folder, **settings), task.protocol_of("opera", ""))


@pytest.fixture(scope="module")
def data(shared: Path) -> Path:
    return shared / "benchmarks/amber"


@pytest.fixture(scope="module")
def items(data: Path) -> dict[int | str, Item]:
    return {item.id: item for item in amber(data).items()}


@pytest.fixture(scope="module")
def cases(shared: Path) -> dict[str, Any]:
    path = shared / "golden/benchmarks/amber_discriminative.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return found


def answers_of(case: dict[str, Any], items: dict[int | str, Item]) -> list[Answer]:
    ids: Sequence[Any] = case.get("ids") or range(1005, 15221)
    texts, index = case["answers"]["texts"], case["answers"]["index"]
    return [Answer(items[at], texts[one]) for at, one in zip(ids, index, strict=True)]


@pytest.mark.parametrize(
    "name",
    [
        "clean",
        "odd",
        "relation only (evaluation type dr)",
        "existence, first 200, always Yes (evaluation type de)",
    ],
)
def test_it_prints_what_the_reference_prints(
    name: str, cases: dict[str, Any], items: dict[int | str, Item], data: Path
) -> None:
    printed = amber(data).official_numbers(answers_of(cases[name], items))

    for section, numbers in cases[name]["reference"].items():
        assert printed[SECTIONS[section]] == {key.lower(): of for key, of in numbers.items()}


def test_few_answers_show_what_the_references_counters_start_at(tmp_path: Path) -> None:
    """By hand: it adds three counters up for attributes. Any parser's "no" is one."""
    parts = ("existence", "state")
    answers = [Answer(Item(k, "1.jpg", "?", "no", part), "no.") for k, part in enumerate(parts)]

    printed = amber(tmp_path, parser="word").official_numbers(answers)

    assert list(printed["attribute"].values()) == [99.7, 99.7, 99.7, 99.7]  # 1 / 1.003
    assert list(printed["state"].values()) == [99.9, 99.9, 99.9, 99.9]  # 1 / 1.001
    assert list(printed["existence"].values()) == [99.9, 99.9, 99.9, 99.9]
    assert "relation" not in printed


def test_both_halves_in_one_file_are_told_apart(
    shared: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = json.loads((shared / "golden/benchmarks/amber_all.json").read_text(encoding="utf-8"))
    (tmp_path / "a.json").write_text(json.dumps(case["records"]))
    task = amber(data, answers=tmp_path / "a.json", partial=True)

    saved = task.read_saved(tmp_path / "a.json", task.items()).arms["answers"]
    printed = task.official_numbers(saved)

    assert (
        "20 row(s) of a.json answer other questions and are not scored" in capsys.readouterr().err
    )
    assert len(saved) == len(case["records"]) - 20
    for section, numbers in case["reference"].items():
        if section in SECTIONS:
            assert printed[SECTIONS[section]] == {key.lower(): of for key, of in numbers.items()}
    assert "answered: 385 of 14,216 questions; unknown" in task.notes({"a": saved})[0]


@pytest.mark.parametrize("name", ["clean", "odd"])
def test_numbers_are_plain_ratios_of_the_references_counts(
    name: str, cases: dict[str, Any], items: dict[int | str, Item], data: Path
) -> None:
    counts = cases[name]["reference_counts"]
    report = report_of(amber(data), {"baseline": answers_of(cases[name], items)})
    (found,) = [one for one in report.grouped.results if one.part == "all"]

    numbers = {key: number.value for key, number in found.numbers.items()}
    kinds = ("correct", "ans_no", "no")
    right, said, no = (counts[f"qa_{key}_score"] for key in kinds)
    asked, denied, negatives = (round(counts[f"qa_{key}_num"]) for key in kinds)
    assert (asked, negatives) == (14216, 9427)
    assert numbers["accuracy"] == pytest.approx(right / asked, abs=1e-12)
    assert numbers["precision"] == pytest.approx(said / denied, abs=1e-12)
    assert numbers["recall"] == pytest.approx(no / negatives, abs=1e-12)
    assert report.grouped.primary == "all"


@pytest.mark.parametrize("name", ["clean", "odd"])
def test_with_the_word_parser_accuracies_are_vlmevalkits(
    name: str, cases: dict[str, Any], items: dict[int | str, Item], data: Path
) -> None:
    task = amber(data, parser="word")
    report = report_of(task, {"baseline": answers_of(cases[name], items)})

    found = {r.part: 100 * r.numbers["accuracy"].value for r in report.grouped.results}
    expected = dict(cases[name]["vlmevalkit"])
    mean = expected.pop("Avg ACC")
    for part, value in expected.items():
        assert found[part.lower()] == pytest.approx(value, abs=1e-9)
    assert sum(found[part.lower()] for part in expected) / 3 == pytest.approx(mean, abs=1e-9)


def test_with_the_substring_parser_counts_are_lmms_evals(
    cases: dict[str, Any], items: dict[int | str, Item], data: Path
) -> None:
    task = amber(data, parser="substring")
    counts = cases["odd"]["lmms_eval_counts"]

    asked, tp, fp, tn, _, _, negatives, _, _ = task.counts(answers_of(cases["odd"], items))

    assert asked == round(counts["qa_correct_num"])
    assert tp + tn == counts["qa_correct_score"]
    assert tp == counts["qa_no_score"] == counts["qa_ans_no_score"]
    assert (tp + fp, negatives) == (round(counts["qa_ans_no_num"]), round(counts["qa_no_num"]))


def test_every_question_has_the_label_and_the_part_of_its_annotation(
    data: Path, items: dict[int | str, Item]
) -> None:
    rows = json.loads((data / "annotations.json").read_text(encoding="utf-8"))
    expected = {r["id"]: (TYPES[r["type"]], r["truth"]) for r in rows if r["type"] in TYPES}

    assert {at: (item.part, item.label) for at, item in items.items()} == expected
    assert len(expected) == sum(AmberDiscriminative.expected.values()) == 14216


# The files.


def write(folder: Path, annotations: Any = None) -> Path:
    folder.mkdir(exist_ok=True)
    queries = [{"id": k, "image": "AMBER_1.jpg", "query": f"Is it {k}?"} for k in (5, 6)]
    annotations = annotations or [
        {"id": 5, "type": "discriminative-attribute-state", "truth": "no"},
        {"id": 6, "type": "relation", "truth": "yes"},
    ]
    (folder / "query_discriminative.json").write_text(json.dumps(queries))
    (folder / "annotations.json").write_text(json.dumps(annotations))
    return folder


def test_a_part_or_a_preset_can_be_asked_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")

    assert [item.id for item in amber(folder).items()] == [5, 6]
    assert [item.id for item in amber(folder, part=("state",)).items()] == [5]
    with pytest.raises(EvaluationError, match="part 'actoin' is unknown: did you mean 'action'"):
        amber(folder, part=("actoin",)).items()
    with pytest.raises(EvaluationError, match="--part number has no questions; leave it out"):
        amber(folder, part=("attribute",)).items()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": 5, "type": "x", "truth": "no"}, "a known type and a truth of yes or no are needed"),
        (
            {"id": 5, "type": "relation", "truth": "No"},
            "a known type and a truth of yes or no are needed",
        ),
        ({"id": 9, "type": "relation", "truth": "no"}, "has {} for question 5"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(EvaluationError) as error:
        amber(write(tmp_path / "data", [row])).items()

    assert said in str(error.value)


def test_probabilities_are_of_all_questions_together() -> None:
    """Not a mean over parts: here each part alone has AUROC 1, and both together have not."""
    given = {"state": [("yes", 0.9), ("no", 0.8)], "relation": [("yes", 0.3), ("no", 0.2)]}
    answers = [
        Answer(Item(f"{part}{k}", f"{part}{k}.jpg", "?", label, part), label.title(), p_yes=p)
        for part, of in given.items()
        for k, (label, p) in enumerate(of)
    ]
    pairs = [(a.p_yes, b.p_yes) for a in answers for b in answers
             if (a.item.label, b.item.label) == ("yes", "no")]  # fmt: skip

    task = AmberDiscriminative(PartSettings(), AmberDiscriminative.protocol_of("opera", ""))
    found = report_of(task, {"baseline": answers}).appendix.content["p_yes"]

    expected = sum(float(x or 0) > float(y or 0) for x, y in pairs) / len(pairs)
    assert expected == 0.75
    numbers = found["arms"]["baseline"]
    assert list(numbers) == [""]
    assert numbers[""]["auroc"]["value"] == expected
