"""RePOPE's corrected labels beside the original ones, by command, against its own scorer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval import pope_eval, runs
from eval.files.answers import Answer, Item
from eval.tasks.pope.questions import POPE_TYPES, dump_questions, read_questions
from eval.tasks.pope.repope import relabel
from tests.eval.small_runs import OLD_RUNS, always_yes, questions, renamed, right, write_run
from tests.eval.tables import table_rows

NAMES = {"ACC": "accuracy", "Precision": "precision", "Recall": "recall", "F1": "f1",
         "Yes Ratio": "yes_ratio"}  # fmt: skip
REFERENCE_ROWS = 600


def labels_of(folder: Path, items: list[Item]) -> Path:
    """Write a folder of RePOPE files with these questions."""
    folder.mkdir(exist_ok=True)
    for part in dict.fromkeys(item.part for item in items):
        path = folder / f"coco_repope_{part}.json"
        path.write_text(dump_questions(item for item in items if item.part == part))
    return folder


def corrected(items: list[Item], corrections: dict[str, str | None]) -> list[Item]:
    """Return the questions with new labels, and without those whose new label is None."""
    found = [(item, corrections.get(str(item.id), item.label)) for item in items]
    return [Item(i.id, i.image, i.question, label, i.part) for i, label in found if label]


def test_both_results_are_those_of_repopes_scorer(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = json.loads((shared / "golden/benchmarks/repope.json").read_text())["splits"]
    rows, fixed, asked = [], [], []
    for part in POPE_TYPES:
        file = shared / f"pope/coco_pope_{part}.json"
        items = read_questions(file, part)[:REFERENCE_ROWS]
        said = golden[part]["answers"]
        rows += [
            {"question_id": item.id, "pope_type": part, "answer": said["texts"][index]}
            for item, index in zip(items, said["index"], strict=True)
        ]
        fixed += corrected(items, golden[part]["corrections (null: removed)"])
        asked += items
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [
        "--answers", str(tmp_path / "a.jsonl"), "--pope-path", str(shared / "pope"), "--pope-type",
        "all", "--limit", str(REFERENCE_ROWS), "--output-dir", str(tmp_path / "runs"), "--labels",
        "repope", "--labels-path", str(labels_of(tmp_path / "labels", fixed)),
    ]  # fmt: skip

    assert pope_eval.main([*given, "--parser", "substring"]) == 0

    (folder,) = (tmp_path / "runs/pope/saved").iterdir()
    metrics = json.loads((folder / "report/metrics.json").read_text())
    for part in POPE_TYPES:
        for content, name in ((metrics, "POPE"), (metrics["repope"], "RePOPE")):
            reference = golden[part]["reference"][name]
            found = content["parsers"]["substring"]["answers"][part]
            (result,) = [r for r in content["results"] if r["part"] == part]
            for key in ("TP", "FP", "TN", "FN"):
                assert found[key.lower()] == reference[key]
            for key, ours in NAMES.items():
                assert found[ours] == pytest.approx(reference[key], rel=1e-12)
                assert result["numbers"][ours]["value"] == pytest.approx(reference[key], rel=1e-12)
        removed = [c for c in golden[part]["corrections (null: removed)"].values() if c is None]
        assert metrics["repope"]["coverage"][part]["dropped"] == len(removed)
        assert metrics["repope"]["coverage"][part]["unanswered"] == 0


@pytest.fixture
def run(tmp_path: Path) -> Path:
    arms = {"baseline": always_yes, "eah": right}
    return write_run(tmp_path / "x-1234", arms, questions(pictures=4))


def labelled(run: Path, labels: Path, *more: str) -> list[str]:
    return ["rescore", str(run), "--labels", "repope", "--labels-path", str(labels), *more]


def test_what_became_of_the_questions_is_printed_and_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight questions: one flipped each way, one dropped, and one of RePOPE's was not asked."""
    items = questions(pictures=4)
    fixed = corrected(items, {"1": "no", "2": "yes", "4": None})
    fixed.append(Item(99, "other.jpg", "Is there a thing 0?", "yes", "random"))
    labels = labels_of(tmp_path / "labels", fixed)

    assert runs.main(labelled(run, labels, "--json", str(tmp_path / "all.json"))) == 0

    printed = capsys.readouterr().out
    metrics = json.loads((tmp_path / "all.json").read_text())
    assert metrics["repope"]["coverage"]["random"] == {
        "asked": 8, "kept": 7, "dropped": 1, "yes_to_no": 1, "no_to_yes": 1, "questions": 8,
        "unanswered": 1,
    }  # fmt: skip
    assert (
        "random: 7 of 8 questions kept, 1 dropped; labels changed yes -> no 1, no -> yes 1;\n"
        in (printed)
    )
    assert "  1 of RePOPE's 8 questions have no answer here" in printed
    original, beside = printed.split("\nRePOPE (")
    assert ["eah", "random", "100.00"] in [
        [cell.split(" (")[0] for cell in row[:3]] for row in table_rows(original)
    ]
    # Of the seven kept, the two flipped ones are wrong now.
    assert ["eah", "random", f"{100 * 5 / 7:.2f}"] in [
        [cell.split(" (")[0] for cell in row[:3]] for row in table_rows(beside)
    ]
    assert set(metrics["repope"]["parsers"]) == set(metrics["parsers"])
    assert metrics["repope"]["parser"] == metrics["parser"] == "opera"


def test_questions_are_joined_by_picture_and_text_and_never_by_id(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids of others, in another order, another folder before the picture: the same labels."""
    items = questions(pictures=4)
    moved = [Item(500 - n, f"val2014/{i.image}", i.question, i.label, i.part)
             for n, i in enumerate(items)]  # fmt: skip
    labels = labels_of(tmp_path / "labels", renamed(moved, question="Is there a thing 7?"))

    assert runs.main(labelled(run, labels, "--json", str(tmp_path / "all.json"))) == 0

    coverage = json.loads((tmp_path / "all.json").read_text())["repope"]["coverage"]["random"]
    assert (coverage["kept"], coverage["dropped"], coverage["unanswered"]) == (7, 1, 1)
    assert (coverage["yes_to_no"], coverage["no_to_yes"]) == (0, 0)


def test_a_request_behind_a_question_does_not_part_it_from_its_label() -> None:
    asked = Item(1, "a.jpg", "Is there a dog?\nAnswer with a single word.", "yes", "random")
    labels = {"random": {("a", "is there a dog"): "no"}}

    found = relabel({"baseline": [Answer(asked, "Yes")]}, labels)
    assert [answer.item.label for answer in found.arms["baseline"]] == ["no"]


def test_a_run_shows_them_also_when_it_is_of_version_0_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (old,) = (path.parent for path in OLD_RUNS.glob("pope/*/*/run.json"))
    items = [a.item for a in runs.find_run(str(old), tmp_path).arms["baseline"].answers]
    labels = labels_of(tmp_path / "labels", items)

    for action in ("show", "rescore"):
        given = [action, str(old), "--labels", "repope", "--labels-path", str(labels)]
        assert runs.main(given) == 0
        assert "\nRePOPE (corrected labels, the same answers)\n" in capsys.readouterr().out


def test_without_the_flag_there_is_one_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.main(["rescore", str(run)]) == 0

    assert "RePOPE" not in capsys.readouterr().out


@pytest.mark.parametrize("action", ["show", "rescore"])
def test_labels_that_can_not_be_read_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    def refused(*more: str) -> str:
        assert runs.main([action, str(run), *more]) == 2
        return capsys.readouterr().err

    empty, foreign = tmp_path / "empty", [Item(1, "z.jpg", "Is it?", "yes", "random")]
    labels = labels_of(tmp_path / "labels", foreign)
    twice = labels_of(tmp_path / "twice", [*foreign, Item(2, "z.jpg", "Is it?", "no", "random")])
    assert "--labels 'repop' is unknown: did you mean 'repope'" in refused("--labels", "repop")
    assert "coco_repope_random.json does not exist; pass RePOPE's folder" in refused(
        "--labels", "repope", "--labels-path", str(empty)
    )
    assert "none of the 8 questions has the picture and text of one of RePOPE's" in refused(
        "--labels", "repope", "--labels-path", str(labels)
    )
    assert "has two labels for 'Is it?' about z.jpg" in refused(
        "--labels", "repope", "--labels-path", str(twice)
    )
    assert "is only used with --labels; pass --labels" in refused("--labels-path", str(labels))


def test_another_benchmark_has_no_other_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(tmp_path / "x-1", {"baseline": right}, benchmark="mme")

    assert runs.main(["rescore", str(path), "--labels", "repope"]) == 2
    assert "--labels repope: mme has no other labels; leave it out" in capsys.readouterr().err


def test_missing_labels_are_said_before_the_model_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("eval.evaluate.ask", lambda *rest: asked.append(rest))
    (tmp_path / "q.json").write_text(dump_questions(questions()))
    given = ["--pope-path", str(tmp_path / "q.json"), "--data-path", str(tmp_path)]

    assert pope_eval.main([*given, "--labels", "repope", "--labels-path", str(tmp_path)]) == 2

    assert "coco_repope_random.json does not exist" in capsys.readouterr().err
    assert asked == []
