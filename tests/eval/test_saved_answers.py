"""`--answers` as a user runs it: files of other tools and runs, scored without a model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import models
from eval import pope_eval, runs
from eval.evaluate import main as evaluate
from eval.files.answers import Item
from eval.run.recorded import RecordedRun, read_run
from eval.tasks.pope.questions import dump_questions
from eval.tasks.yes_no.answers import read_answers
from eval.tasks.yes_no.parsers import PARSERS
from tests.eval.results import result_in
from tests.eval.small_runs import OLD_RUNS, always_yes, questions, right, state_of, write_run

PARTS = ("random", "popular")
CASES = {
    "answers-table-export/a_table_export.jsonl": ("VLMEvalKit table (JSON lines)", 0.5),
    "answers-other-tools/a_list.json": ("rows with 'answer' (JSON list)", 1.0),
    "answers-other-tools/a_llava.jsonl": ("LLaVA (JSON lines)", 1.0),
    "answers-other-tools/a_lmms.jsonl": ("lmms-eval samples (JSON lines)", 1.0),
    "answers-other-tools/a_strid.jsonl": ("rows with 'answer' (JSON lines)", 1.0),
}


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "load", None)


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Write question files of two types into `pope`, and return the questions."""
    found = questions(parts=PARTS)
    for part in PARTS:
        path = tmp_path / f"pope/coco_pope_{part}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(dump_questions(item for item in found if item.part == part))
    return found


def flags(tmp_path: Path, answers: Path, *more: str, questions: Path | None = None) -> list[str]:
    return [
        "--answers", str(answers), "--pope-path", str(questions or tmp_path / "pope"),
        "--output-dir", str(tmp_path / "runs"), "--json", str(tmp_path / "all.json"), *more,
    ]  # fmt: skip


def scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[str, dict[str, Any]]:
    """Return what the command prints and writes."""
    assert pope_eval.main(arguments) == 0, capsys.readouterr().err
    return capsys.readouterr().out, result_in(tmp_path / "all.json")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the sentence that a command ends with."""
    assert pope_eval.main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "note:" not in line]
    assert len(lines) == 1
    return lines[0]


def saved_run(tmp_path: Path, model: str = "saved") -> RecordedRun:
    (folder,) = (tmp_path / "runs/pope" / model).iterdir()
    return read_run(folder)


def accuracy(metrics: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(r["arm"], r["part"]): r["numbers"]["accuracy"]["value"] for r in metrics["results"]}


def rows_of(items: list[Item], path: Path, **more: Any) -> Path:
    lines = [{"question_id": i.id, "pope_type": i.part, "answer": right(i), **more} for i in items]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("name", CASES)
def test_files_of_other_tools_are_scored_and_their_layout_is_named(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    layout, expected = CASES[name]
    folder = shared / "cases" / name.partition("/")[0]

    given = flags(tmp_path, shared / "cases" / name, questions=folder / "q_ok.json")
    text, metrics = scored(tmp_path, capsys, *given)

    assert f"layout: {layout}" in text
    assert metrics["answers"]["layout"] == layout
    assert list(accuracy(metrics).values()) == [expected]
    assert set(metrics["parsers"]) == set(PARSERS)


@pytest.mark.parametrize("name", ["q_capital.json", "q_list.json", "q_lmms.jsonl", "q_strid.json"])
def test_question_files_of_other_tools_are_read(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = shared / "cases/answers-other-tools"

    _, metrics = scored(
        tmp_path, capsys, *flags(tmp_path, folder / "a_lmms.jsonl", questions=folder / name)
    )

    assert accuracy(metrics) == {("answers", "random"): 1.0}


# The papers' numbers, by OPERA's parser, and what the note says.
ODD = {
    "a_excl": (0.5, "50.0 % of 6 answers: 'No!' is yes for opera and pope, no for strict"),
    "a_eos": (0.5, "50.0 % of 6 answers: 'No</s>' is yes for opera and pope, no for strict"),
    "a_star": (0.5, "50.0 % of 6 answers: '**No**' is yes for opera and pope, no for strict"),
    "a_newline": (0.5, "50.0 % of 6 answers: '\\nNo\\n' is yes for opera and pope, no for"),
    "a_lower_nt": (0.5, "100.0 % of 6 answers: 'there is' is yes for opera and pope, unknown"),
    "a_cn": (0.5, "100.0 % of 6 answers: '是的' is yes for opera and pope, unknown for strict"),
    "a_think": (0.5, "no wait.</think>...' is no for opera and pope, unknown for strict, yes for"),
    "a_ansempty": (0.5, "6 of 6 answers are empty answers: the parsers disagree on 100.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_answers_keep_the_papers_numbers_and_earn_a_note(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder, (expected, note) = shared / "cases/answers-odd", ODD[name]

    given = flags(tmp_path, folder / f"{name}.jsonl", questions=folder / "q_ok.json")
    text, metrics = scored(tmp_path, capsys, *given)

    assert accuracy(metrics) == {("answers", "random"): expected}
    printed = " ".join(text.split())
    assert note in printed
    assert "--parser NAME selects another" in printed
    found = metrics["parser_disagreement"]["answers"]
    assert found["empty"] == (6 if name == "a_ansempty" else 0)
    assert found["share"] in (0.5, 1.0)


def test_plain_answers_earn_no_note(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(tmp_path, rows_of(items, tmp_path / "a.jsonl"), "--pope-type", *PARTS)
    text, metrics = scored(tmp_path, capsys, *given)

    assert "disagree" not in text
    assert metrics["parser_disagreement"]["answers"]["share"] == 0


@pytest.mark.parametrize(("parser", "rule"), [("opera", "opera_eah_rule"), ("pope", "pope_rule")])
def test_golden_metrics_are_in_the_file_of_metrics(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], parser: str, rule: str
) -> None:
    golden = json.loads((shared / "golden/pope_scoring.json").read_text())
    labels = [{0: "no", 1: "yes"}.get(label, label) for label in golden["labels"]]
    asked = [Item(n, f"{n}.jpg", f"Is it {n}?", label, "random") for n, label in enumerate(labels)]
    (tmp_path / "q.json").write_text(dump_questions(asked))
    lines = [{"question_id": n, "answer": text} for n, text in enumerate(golden["answers"])]
    (tmp_path / "a.json").write_text(json.dumps(lines))

    given = flags(tmp_path, tmp_path / "a.json", "--parser", parser, questions=tmp_path / "q.json")
    scored(tmp_path, capsys, *given)

    written = json.loads((saved_run(tmp_path).path / "report/metrics.json").read_text())
    found = written["parsers"][parser]["answers"]["random"]
    for name in ("TP", "FP", "TN", "FN"):
        assert found[name.lower()] == golden[rule][name]
    for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
        assert found[name] == pytest.approx(golden[rule][name], rel=1e-12)
    assert accuracy(written)["answers", "random"] == found["accuracy"]


def test_a_file_gets_a_run_folder_that_all_of_runs_works_on(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = rows_of(items, tmp_path / "a.jsonl")
    text, metrics = scored(tmp_path, capsys, *flags(tmp_path, saved, "--pope-type", *PARTS))
    run = saved_run(tmp_path)

    assert f"run folder: {run.path}" in text
    assert run.path.name.startswith("random+popular-")
    assert [(one.name, len(one.answers)) for one in run.arms.values()] == [("answers", 12)]
    assert run.settings["answers"].keys() == {"file", "sha256", "layout", "answer_key", "id_key"}
    assert run.settings["answers"]["file"] == "a.jsonl"
    assert {path.name for path in (run.path / "report").iterdir()} == {
        "metrics.json", "table.md", "table.csv",
    }  # fmt: skip
    assert metrics == json.loads((run.path / "report/metrics.json").read_text())
    other = write_run(tmp_path / "runs/pope/tiny/x-1234", {"baseline": always_yes}, items)
    shown = []
    for action in (
        ["list", str(tmp_path / "runs")],
        ["show", str(run.path)],
        ["rescore", run.hash, "--parser", "strict"],
        ["compare", str(other), str(run.path)],
        ["export", str(run.path), "--format", "csv"],
    ):
        assert runs.main([*action, "--runs-dir", str(tmp_path / "runs")]) == 0
        shown.append(capsys.readouterr().out)
    assert "pope/saved/random+popular-" in shown[0]
    assert "layout: rows with 'answer' (JSON lines)" in shown[1]
    assert "parser strict" in shown[2]
    assert "not paired" not in shown[3]
    assert "B:answers" in shown[3]
    assert "by different code" not in shown[3]
    assert shown[4].startswith("arm,part,n,accuracy")


def test_the_same_answers_again_are_the_same_folder(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = rows_of(items, tmp_path / "a.jsonl")
    first, _ = scored(tmp_path, capsys, *flags(tmp_path, saved, "--pope-type", *PARTS))
    before = state_of(saved_run(tmp_path).path)
    copy = Path(shutil.copy(saved, tmp_path / "copy.jsonl"))

    again, _ = scored(tmp_path, capsys, *flags(tmp_path, copy, "--pope-type", *PARTS))

    after = state_of(saved_run(tmp_path).path)
    assert again == first
    assert {name: of for name, of in after.items() if not name.startswith(("report", ".lock"))} == {
        name: of for name, of in before.items() if not name.startswith(("report", ".lock"))
    }
    assert {name: of[0] for name, of in after.items()} == {n: of[0] for n, of in before.items()}


def test_other_answers_or_questions_are_another_folder(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = rows_of(items, tmp_path / "a.jsonl", note="No")
    scored(tmp_path, capsys, *flags(tmp_path, saved, "--pope-type", *PARTS))
    scored(tmp_path, capsys, *flags(tmp_path, saved, "--pope-type", "popular"))
    scored(tmp_path, capsys, *flags(tmp_path, saved, "--pope-type", *PARTS, "--answer-key", "note"))
    rows_of(items[::-1], saved, note="No")
    scored(tmp_path, capsys, *flags(tmp_path, saved, "--pope-type", *PARTS))

    assert len(list((tmp_path / "runs/pope/saved").iterdir())) == 4


def test_answers_that_were_changed_in_the_folder_are_noticed(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(tmp_path, rows_of(items, tmp_path / "a.jsonl"), "--pope-type", *PARTS)
    scored(tmp_path, capsys, *given)
    path = saved_run(tmp_path).path / "arms/answers/answers.jsonl"
    path.write_text(path.read_text().replace("No, ", "Yes, "))

    assert "other answers than the file that it was made from" in refused(capsys, *given)


def test_popular_answers_are_not_scored_as_adversarial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids are the same in all types."""
    popular, adversarial = (
        [Item(n, "1.jpg", f"Is there a {thing} in the image?", "no", part) for n in (1, 2)]
        for part, thing in (("popular", "person"), ("adversarial", "fork"))
    )
    (tmp_path / "q.json").write_text(dump_questions(adversarial))
    rows = [{"question_id": i.id, "prompt": i.question, "text": "No"} for i in popular]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    given = flags(tmp_path, tmp_path / "a.jsonl", questions=tmp_path / "q.json")
    sentence = refused(capsys, *given, "--pope-type", "adversarial")

    assert (
        "line 1 answers 'Is there a person in the image?', but question 1 is 'Is there a fork"
        in (sentence)
    )
    assert "the same --pope-type" in sentence


@pytest.mark.parametrize("kind", ["llava", "lmms-eval"])
def test_exports_are_read_back(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    arms = {"baseline": always_yes, "eah@layers=2": right}
    path = write_run(tmp_path / "x-1234", arms, items)
    exported = tmp_path / "exported.jsonl"
    assert runs.main(["export", str(path), "--format", kind, "--output", str(exported)]) == 0

    _, metrics = scored(tmp_path, capsys, *flags(tmp_path, exported, "--pope-type", *PARTS))

    run = saved_run(tmp_path, "tiny-llava")
    for name, arm in read_run(path).arms.items():
        assert [(a.item, a.text) for a in run.arms[name].answers] == [
            (a.item, a.text) for a in arm.answers
        ]
    assert metrics["differences"]
    assert accuracy(metrics)["eah@layers=2", "mean"] == 1.0


def test_exports_of_a_file_that_was_scored_have_its_arms(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No model is known of it, and the arm that others are compared with stays the baseline."""
    row = {"question_id": 1, "prompt": items[0].question, "text": "yes"}
    rows = [{**row, "model_id": f"saved/{arm}"} for arm in ("baseline", "eah")]
    path = tmp_path / "saved.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))

    found = read_answers(path, [replace(items[0], id=1)])

    assert (found.model, list(found.arms)) == ("saved", ["baseline", "eah"])


@pytest.mark.parametrize("protocol", ["opera", "official"])
def test_a_run_folder_is_scored_from_itself(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    arms = {"baseline": always_yes, "eah": right}
    path = write_run(tmp_path / "x-1234", arms, items, protocol=protocol)
    before = state_of(path)

    text, metrics = scored(tmp_path, capsys, *flags(tmp_path, path, "--pope-type", *PARTS))

    after = state_of(path)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"report"}
    assert not (tmp_path / "runs").exists()
    assert metrics["parser"] == {"opera": "opera", "official": "pope"}[protocol]
    assert accuracy(metrics)["eah", "mean"] == 1.0
    assert metrics["answers"] == {"layout": "run folder"}
    assert "layout: run folder\n" in text


def test_the_answers_of_an_arm_know_their_protocol(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(tmp_path / "x-1234", {"eah": right}, items, protocol="official")

    given = flags(tmp_path, path / "arms/eah/answers.jsonl", "--pope-type", *PARTS)
    _, metrics = scored(tmp_path, capsys, *given)

    assert metrics["parser"] == "pope"
    run = saved_run(tmp_path, "tiny-llava")
    assert run.arms["eah"].answers == read_run(path).arms["eah"].answers
    assert run.settings["answers"]["layout"] == "answers of an arm (JSON lines)"


def test_an_unfinished_arm_is_left_out_and_named(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(tmp_path / "x-1234", {"baseline": right, "eah": right}, items)
    file = path / "arms/eah/answers.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))

    assert pope_eval.main(["--answers", str(path)]) == 0

    printed = capsys.readouterr()
    assert "note: arm eah is unfinished, so it is left out of these numbers" in printed.err
    assert "| eah" not in printed.out


def test_runs_and_files_of_version_0_1_are_scored_and_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (old,) = (path.parent for path in OLD_RUNS.glob("pope/*/*/run.json"))
    before = state_of(old)
    run = read_run(old)
    asked = [answer.item for answer in run.arms["baseline"].answers]
    parts = list(dict.fromkeys(item.part for item in asked))
    (tmp_path / "pope").mkdir()
    for part in parts:
        path = tmp_path / f"pope/coco_pope_{part}.json"
        path.write_text(dump_questions(item for item in asked if item.part == part))

    found = [scored(tmp_path, capsys, *flags(tmp_path, path, "--pope-type", *parts))
             for path in (old, old / "predictions.jsonl")]  # fmt: skip

    assert state_of(old) == before
    assert found[0][1]["results"] == found[1][1]["results"]
    assert "layout: run folder, version 0.1\n" in found[0][0]
    assert "layout: version 0.1 (JSON lines)" in found[1][0]
    assert set(saved_run(tmp_path, "tiny-llava").arms) == set(run.arms)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--beam", "5"], "--beam affects how a model is asked"),
        (["--dtype", "float16"], "--dtype affects how a model is asked"),
        (["--batch-size", "4"], "--batch-size affects how a model is asked"),
        (["--protocol", "official"], "--protocol affects how a model is asked"),
        (["--no-prefix-reuse"], "--no-prefix-reuse affects how a model is asked"),
        (["--THRES", "0.1"], "--THRES affects how a model is asked"),
        (["--method", "eah"], "--method affects how a model is asked"),
        (["--dry-run"], "--dry-run affects how a model is asked"),
        (["--answer-key", "said"], "--answer-key said is not a key of"),
        (["--parser", "opra"], "parser 'opra' is unknown"),
        (["--reference", "eah"], "--reference eah is not an arm of this run (answers); name one"),
    ],
)
def test_flags_that_contradict_saved_answers_are_refused(
    items: list[Item],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    message: str,
) -> None:
    given = flags(tmp_path, rows_of(items, tmp_path / "a.jsonl"), "--pope-type", *PARTS)

    assert message in refused(capsys, *given, *extra)


def test_arms_of_saved_answers_may_be_called_anything_also_as_a_reference(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    lines = [rows_of(items, path, method=name).read_text() for name in ("GPT-4V", "Qwen-2.5")]
    path.write_text("".join(lines))
    given = flags(tmp_path, path, "--pope-type", *PARTS, "--reference", "GPT-4V")

    text, metrics = scored(tmp_path, capsys, *given)

    assert "Qwen-2.5 - GPT-4V" in text
    assert {d["reference"] for d in metrics["differences"]} == {"GPT-4V"}


def test_a_limit_that_leaves_answers_over_is_named(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(tmp_path, rows_of(items, tmp_path / "a.jsonl"), "--pope-type", *PARTS)

    said = refused(capsys, *given, "--limit", "1")

    assert "--limit 1 keeps only the first 1 questions of each part: leave it out" in said


def test_folders_that_are_no_run_of_the_benchmark_are_refused(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mme = write_run(tmp_path / "mme-1", {"baseline": right}, items, benchmark="mme")
    path = write_run(tmp_path / "x-1", {"baseline": right}, items)

    assert "is not a run folder, since it has no run.json" in refused(
        capsys, *flags(tmp_path, tmp_path / "pope")
    )
    assert "has answers to mme, not to pope; pass --task mme" in refused(
        capsys, *flags(tmp_path, mme)
    )
    other = tmp_path / "pope/coco_pope_random.json"
    other.write_text(other.read_text().replace("Is there", "Are there"))
    assert "answers 'Is there a thing 0?', but question 0 is 'Are there" in refused(
        capsys, *flags(tmp_path, path)
    )
    other.write_text(other.read_text().replace("Are there", "Is there").replace('"yes"', '"no"'))
    assert "is recorded with the label 'yes', but it is 'no' in the question file" in refused(
        capsys, *flags(tmp_path, path)
    )
    assert pope_eval.main(["--answer-key", "x", "--pope-path", str(other)]) == 2
    assert "--answer-key is only used with --answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--limit", "2"], "--limit is only for files of answers, but"),
        (["--answer-key", "x"], "--answer-key is only for files of answers, but"),
        (["--pope-type", "adversarial"], "--pope-type adversarial, but"),
        (["--pope-type", "popular"], "a run folder is scored whole: leave out --pope-type"),
    ],
)
def test_flags_that_a_run_folder_leaves_unused_are_refused(
    items: list[Item],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    message: str,
) -> None:
    path = write_run(tmp_path / "x-1", {"baseline": right}, items)

    assert message in refused(capsys, "--answers", str(path), *extra)


def test_no_path_of_this_machine_is_recorded(
    items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(tmp_path, rows_of(items, tmp_path / "a.jsonl"), "--pope-type", *PARTS)
    scored(tmp_path, capsys, *given)

    for file in saved_run(tmp_path).path.rglob("*.json"):
        assert str(tmp_path) not in file.read_text()


def test_any_yes_no_benchmark_reads_saved_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mme/existence"
    folder.mkdir(parents=True)
    (folder / "1.jpg").touch()
    (folder / "1.txt").write_text(
        "Is there a cat? Please answer yes or no.\tYes\n"
        "Is there a dog? Please answer yes or no.\tNo\n"
    )
    rows = [
        {"index": n, "question": f"Is there a {thing}?", "answer": label, "prediction": "Yes",
         "category": "existence"}
        for n, (thing, label) in enumerate((("cat", "Yes"), ("dog", "No")))
    ]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(rows))

    given = ["--task", "mme", "--data-path", str(tmp_path / "mme"), "--answers",
             str(tmp_path / "a.json"), "--output-dir", str(tmp_path / "runs"),
             "--json", str(tmp_path / "all.json")]  # fmt: skip
    assert evaluate(given) == 0, capsys.readouterr().err

    metrics = json.loads((tmp_path / "all.json").read_text())
    assert metrics["parser"] == "first-4"
    assert accuracy(metrics) == {("answers", "existence"): 0.5}
