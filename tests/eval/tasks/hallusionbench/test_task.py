"""HallusionBench: the board's numbers, VLMEvalKit's, and its rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from eval import runs
from eval.errors import EvaluationError
from eval.evaluate import main
from eval.files.answers import Answer, Item
from eval.output.report import Report, report_of
from eval.tasks.hallusionbench import board
from eval.tasks.hallusionbench.rows import FILE, PARTS, TEXT_ONLY, Verdict, read_items
from eval.tasks.hallusionbench.settings import HallusionSettings
from eval.tasks.hallusionbench.task import HallusionBench

Rows = list[dict[str, Any]]
BOARD = {"qAcc": "q_acc", "fAcc": "f_acc", "easy aAcc": "easy", "hard aAcc": "hard",
         "aAcc": "a_acc"}  # fmt: skip


def task(**settings: Any) -> HallusionBench:
    return HallusionBench(HallusionSettings(**settings), HallusionBench.protocol_of("opera", ""))


@pytest.fixture(scope="module")
def data(shared: Path) -> Path:
    return shared / "benchmarks/hallusionbench"


@pytest.fixture(scope="module")
def rows(data: Path) -> Rows:
    found: Rows = json.loads((data / FILE).read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def cases(shared: Path) -> dict[str, Any]:
    path = shared / "golden/benchmarks/hallusionbench.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return found


@pytest.fixture(scope="module", params=["judged good", "judged weak"])
def judged(
    request: pytest.FixtureRequest,
    data: Path,
    rows: Rows,
    cases: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Report, dict[str, Any]]:
    """Return the report of a file as the benchmark's evaluation.py writes it."""
    case = cases[request.param]
    path = tmp_path_factory.mktemp("judged") / "result.json"
    verdicts = zip(rows, case["check"], case["same"], strict=True)
    path.write_text(json.dumps([
        {**row, "model_prediction": "?", "gpt4v_output_gpt_check": check, "same": same}
        for row, check, same in verdicts
    ]))  # fmt: skip
    of = task(questions=data, answers=path, verdicts=path, text_only=True)
    return report_of(of, of.read_saved(path, of.items()).arms), case["reference"]


def results(report: Report) -> dict[str, dict[str, float]]:
    return {
        one.part: {name: number.value for name, number in one.numbers.items()}
        for one in report.grouped.results
    }


def test_a_judges_verdicts_give_the_boards_numbers(judged: tuple[Report, dict[str, Any]]) -> None:
    report, reference = judged
    found = report.appendix.content["board"]["answers"]["all"]

    assert {name: found[key] for name, key in BOARD.items()} == reference["leaderboard"]
    for name, key in BOARD.items():
        value = 100 * results(report)["all"][key]
        assert value == pytest.approx(reference["leaderboard"][name], abs=1e-4)
    assert found["yes_diff"] == pytest.approx(100 * reference["bias"]["diff"], abs=1e-9)
    assert found["fp_ratio"] == pytest.approx(100 * reference["bias"]["fp"], abs=1e-9)


@pytest.mark.parametrize("kind", ["all", "VD", "VS"])
def test_groups_figures_and_causes_are_counted_as_the_reference_counts(
    kind: str, judged: tuple[Report, dict[str, Any]]
) -> None:
    report, every = judged
    reference, found = every[kind], report.appendix.content["board"]["answers"][kind]

    for key, name in (("q_acc", "pair"), ("easy", "easy_pair"), ("hard", "hard_pair"),
                      ("f_acc", "figure"), ("a_acc", "question")):  # fmt: skip
        of = reference[name]
        assert found[key] == round(100 * of["correct"] / of["total"], 4)
        assert results(report)[kind][key] == pytest.approx(of["correct"] / of["total"], abs=1e-12)
    figure = reference["figure"]
    assert found["figures"]["score"] == pytest.approx(figure["score"], abs=1e-9)
    for key, name in (("right", "correct"), ("wrong", "wrong"), ("mixed", "inconsistent")):
        assert found["figures"][key] == round(100 * figure[name] / figure["total"], 4)
    causes = {name: reference["pair"][f"{name}_cg"] for name in ("LH", "VI", "Mix")}
    for name, count in causes.items():
        assert found["causes"][name] == pytest.approx(100 * count / sum(causes.values()), abs=1e-9)


def test_intervals_resample_sets(judged: tuple[Report, dict[str, Any]], rows: Rows) -> None:
    report, _ = judged
    sets = {(row["category"], row["subcategory"], row["set_id"]) for row in rows}

    assert report.grouped.pictures == len(sets)
    assert f"resamples of the {len(sets)} set(s)" in report.text()
    assert report.as_dict()["bootstrap"]["resampled"] == "sets"


def text_answers(data: Path, case: dict[str, Any]) -> list[Answer]:
    texts, index = case["answers"]["texts"], case["answers"]["index"]
    items = read_items(data / FILE)
    return [Answer(item, texts[at]) for item, at in zip(items, index, strict=True)]


def test_the_rule_gives_vlmevalkits_numbers(data: Path, cases: dict[str, Any]) -> None:
    case = cases["text answers"]
    answers = [one for one in text_answers(data, case) if one.item.image]

    found = results(report_of(task(), {"baseline": answers}))

    expected = {"all" if kind == "Overall" else kind: of
                for kind, of in case["vlmevalkit_951"].items()}  # fmt: skip
    assert found.keys() == expected.keys()
    for kind, numbers in expected.items():
        for name in ("aAcc", "fAcc", "qAcc"):
            key = f"{name[0]}_acc"
            assert 100 * found[kind][key] == pytest.approx(numbers[name], abs=1e-9), (kind, name)


def test_the_rule_as_judge_gives_the_boards_numbers(data: Path, cases: dict[str, Any]) -> None:
    case = cases["text answers"]
    answers, of = text_answers(data, case), task()

    found = board.board(answers, of.read, None)["all"]

    expected = case["reference_with_rule_as_judge"]["leaderboard"]
    assert {name: found[key] for name, key in BOARD.items()} == expected
    assert found["causes"] is None
    numbers = results(report_of(of, {"baseline": answers}))["all"]
    for name, key in BOARD.items():
        assert 100 * numbers[key] == pytest.approx(expected[name], abs=1e-4)


def test_coin_flips_get_what_is_printed() -> None:
    """Two figures: one with two questions, one with one; two questions over them."""
    rows = [("0", "0"), ("0", "1"), ("1", "0")]
    items = [Item(f"4_{f}_{q}", f"{f}.png", "?", "no", "VD_math",
                  {"unit": "s", "figure": f, "question": q, "visual_input": "1"})
             for f, q in rows]  # fmt: skip

    found = board.board([Answer(item, "no") for item in items], task().read, None)["all"]

    half_of_both = 100 * (1 / 4 + 1 / 2) / 2
    assert found["chance"] == {"f_acc": half_of_both, "q_acc": half_of_both}
    assert found["fp_ratio"] is None  # nothing is wrong


def test_causes_need_the_answer_about_the_first_figure() -> None:
    groups = {"unit": "s", "figure": "1", "question": "0", "visual_input": "2"}
    item = Item("4_1_0", "1.png", "?", "no", "VD_math", groups)

    found = board.board([Answer(item, "yes")], task().read, {item.key: Verdict(0, True)})["all"]

    assert found["causes"] is None
    assert found["fp_ratio"] == 100


# Rows.


def test_questions_are_counted_by_part(data: Path, rows: Rows) -> None:
    shown = [f"{r['category']}_{r['subcategory']}" for r in rows if r["filename"]]
    hidden = [f"{r['category']}_{r['subcategory']}" for r in rows if not r["filename"]]

    assert {part: shown.count(part) for part in dict.fromkeys(shown)} == dict(PARTS)
    assert {part: hidden.count(part) for part in dict.fromkeys(hidden)} == TEXT_ONLY
    assert len(task(questions=data).items()) == 951 == sum(PARTS.values())
    assert len(task(questions=data, part=("VS",)).items()) == 360


def few(folder: Path, **changes: Any) -> Path:
    row = {
        "category": "VD", "subcategory": "math", "visual_input": "1", "set_id": "0",
        "figure_id": "0", "question_id": "0", "question": "Is it so?", "gt_answer": "1",
        "filename": "./VD/math/0_0.png", **changes,
    }  # fmt: skip
    (folder / FILE).write_text(json.dumps([row]))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gt_answer": "2"}, "gt_answer (0 or 1)"),
        ({"filename": None}, "unless that is 0, filename"),
        ({"question": ""}, "question, gt_answer"),
        ({"subcategory": "maths"}, "category, subcategory, set_id"),
        ({"visual_input": "3"}, "visual_input (0, 1 or 2)"),
    ],
)
def test_damaged_rows_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(EvaluationError) as error:
        task(questions=few(tmp_path, **changes)).items()

    assert said in str(error.value)


def test_verdicts_are_complete_and_clear_or_refused(tmp_path: Path) -> None:
    (item,) = read_items(few(tmp_path) / FILE)

    def of(rows: Sequence[dict[str, Any]]) -> HallusionBench:
        (tmp_path / "v.json").write_text(json.dumps(rows))
        return task(answers=tmp_path / "v.json", verdicts=tmp_path / "v.json")

    row = {"category": "VD", "subcategory": "math", "set_id": "0", "figure_id": "0",
           "question_id": "0"}  # fmt: skip
    for check, said in (("0", "no"), ("1", "yes"), ("2", None)):
        assert of([{**row, "gpt_check": check}]).read(Answer(item, "?")) == said
    right = {**row, "gpt_check": "1"}
    for rows, said in (
        ([{**row, "gpt_check": "3"}], "has the verdict '3'; it needs one key"),
        ([row], "has the verdict None"),
        ([{**right, "old_gpt_check": "0"}], "has the verdict None"),
        ([right, right], "has a second verdict on VD_math 0_0_0"),
        ([{**right, "set_id": "1"}], "has no verdict for .*0_0_0"),
    ):
        with pytest.raises(EvaluationError, match=said):
            of(rows).read(Answer(item, "?"))


def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--task", "hallusionbench", "--questions", str(few(tmp_path))]
    for flags, said in (
        (["--text-only"], "--text-only is only for saved answers"),
        (["--verdicts", "v.json"], "--verdicts is only for saved answers"),
        (["--parser", "judge"], "needs a judge's verdicts; pass them as --verdicts"),
        (["--parser", "word", "--verdicts", "v.json", "--answers", "a"], "leave one of them out"),
    ):
        assert main([*base, *flags]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "figure", "kind", "verdict", "first", "cause"),
    [
        ("VD_math", "0", "1", (2, False), 2, "VI"),
        ("VS_map", "0", "0", (0, False), 0, "LH"),
        ("VS_map", "0", "0", (2, False), 2, ""),
        ("VD_math", "1", "2", (0, True), 1, "Mix"),
        ("VD_math", "1", "2", (0, False), 1, "VI"),
        ("VD_math", "1", "2", (2, True), 1, "VI"),
        ("VD_math", "1", "2", (0, True), 0, "VI"),
        ("VS_map", "1", "1", (0, True), 0, "LH"),
        ("VS_map", "1", "1", (0, False), 0, "Mix"),
        ("VS_map", "1", "1", (2, True), 0, "Mix"),
        ("VS_map", "1", "2", (0, True), 2, "VI"),
        ("VS_map", "1", "1", (0, True), 1, "VI"),
        ("VS_map", "1", "2", (0, True), 1, "LH"),
        ("VS_map", "1", "2", (0, False), 1, "VI"),
        ("VS_map", "1", "2", (2, True), 1, "VI"),
        ("VS_map", "1", "2", (1, True), 0, ""),
    ],
)
def test_each_cause_has_its_rule(
    part: str, figure: str, kind: str, verdict: tuple[int, bool], first: int, cause: str
) -> None:
    """Rules of facts/benchmarks.md, one by one."""
    groups = {"unit": "s", "figure": figure, "question": "0", "visual_input": kind}
    item = Item("a", "a.png", "?", "no", part, groups)

    assert board._cause(item, Verdict(*verdict), first) == cause


def test_the_command_scores_questions_without_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not to know is right there; answers pass through a run folder."""
    folder = few(tmp_path, category="VS", subcategory="map", visual_input="0", filename=None)
    (row,) = json.loads((folder / FILE).read_text())
    path, out = tmp_path / "result.json", tmp_path / "numbers.json"
    path.write_text(json.dumps([{**row, "model_prediction": "I can't know."}]))
    command = ["--task", "hallusionbench", "--questions", str(folder), "--text-only", "--json",
               str(out), "--output-dir", str(tmp_path / "runs")]  # fmt: skip

    assert main([*command, "--answers", str(path)]) == 0, capsys.readouterr().err

    printed = capsys.readouterr().out
    assert "answered: 1 of 1,129 questions" in printed
    folder = Path(printed.rpartition("run folder: ")[2].strip())
    assert runs.main(["show", str(folder)]) == 0  # without --text-only
    assert "answered: 1 of 1,129 questions" in capsys.readouterr().out
    (of_map,) = json.loads(out.read_text())["results"]
    assert of_map["numbers"]["a_acc"]["value"] == 1
    assert of_map["numbers"]["f_acc"]["value"] is None


def test_a_run_that_a_judge_scored_is_never_shown_by_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = json.loads((few(tmp_path) / FILE).read_text())
    (tmp_path / "v.json").write_text(
        json.dumps([{**row, "model_prediction": "No", "gpt_check": 1}])
    )
    (tmp_path / "w.json").write_text(json.dumps([{**row, "gpt_check": 0}]))
    command = ["--task", "hallusionbench", "--questions", str(tmp_path), "--answers",
               str(tmp_path / "v.json"), "--answer-key", "model_prediction", "--output-dir",
               str(tmp_path / "runs"), "--verdicts", str(tmp_path / "v.json")]  # fmt: skip
    assert main(command) == 0
    (folder,) = (tmp_path / "runs/hallusionbench/saved").iterdir()
    first = capsys.readouterr().out
    assert "parser judge" in first
    assert "100.00" in first

    assert runs.main(["show", str(folder)]) == 2
    assert "was scored with a judge's verdicts; pass that file" in capsys.readouterr().err
    assert runs.main(["show", str(folder), "--verdicts", str(tmp_path / "w.json")]) == 2
    assert "was scored with other verdicts than" in capsys.readouterr().err
    assert runs.main(["show", str(folder), "--verdicts", str(tmp_path / "v.json")]) == 0
    assert "100.00" in capsys.readouterr().out
    assert runs.main(["show", str(folder), "--parser", "word"]) == 0
    shown = capsys.readouterr().out
    assert "parser word" in shown
    assert "| answers | VD_math | 0.00 " in " ".join(shown.split())
