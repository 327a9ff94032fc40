"""`eval/runs.py` as a user runs it: recorded runs are listed, scored, compared and exported."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import models
from eval import pope_eval
from eval.files.answers import Item
from eval.output.exports import FORMATS
from eval.output.table import WIDTH
from eval.runs import main
from tests.eval.results import result_in
from tests.eval.small_runs import (
    OLD_RUNS,
    ROOT,
    always_yes,
    only_run,
    pope_flags,
    questions,
    renamed,
    right,
    state_of,
    write_run,
)

OLD_POPE, OLD_CHAIR = "28057fe1", "096b581c"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which must succeed, and return what it printed."""
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    tables = [line for line in printed.out.splitlines() if line.startswith("|")]
    assert max(map(len, tables), default=0) <= WIDTH or "--wide" in arguments
    return printed.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which must fail with one sentence, and return it."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    (sentence,) = printed.err.splitlines()
    assert sentence.startswith("runs: error: ")
    assert not printed.out
    return sentence


def table(text: str) -> list[list[str]]:
    """Return the cells of the first table of arms, without its header."""
    start = text.find("| arm ")
    lines = text[start if start >= 0 else text.index("| ") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder of runs: two to the same questions, one to others, one unfinished."""
    root = tmp_path / "runs/pope/tiny-llava"
    arms = {"baseline": always_yes, "eah": right}
    write_run(root / "opera-random-aaaa1111", arms)
    write_run(root / "opera-random-aaaa2222", {"baseline": right, "vcd": right}, weights="sha256:2")
    write_run(root / "opera-random-bbbb3333", arms, renamed(questions(), question="Another?"))
    unfinished = write_run(root / "opera-random-cccc4444", arms)
    answers = unfinished / "arms/eah/answers.jsonl"
    answers.write_text("".join(answers.read_text().splitlines(keepends=True)[:2]))
    return tmp_path / "runs"


# list, show ------------------------------------------------------------------------------------


def test_runs_are_listed_with_every_arm(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(run(capsys, "list", str(runs)))

    name = "pope/tiny-llava/opera-random"
    assert rows == [
        [f"{name}-aaaa1111 baseline", "6 of 6", "finished", "2026-01-02"],
        [f"{name}-aaaa1111 eah", "6 of 6", "finished", "2026-01-02"],
        [f"{name}-aaaa2222 baseline", "6 of 6", "finished", "2026-01-02"],
        [f"{name}-aaaa2222 vcd", "6 of 6", "finished", "2026-01-02"],
        [f"{name}-bbbb3333 baseline", "6 of 6", "finished", "2026-01-02"],
        [f"{name}-bbbb3333 eah", "6 of 6", "finished", "2026-01-02"],
        [f"{name}-cccc4444 baseline", "6 of 6", "finished", "2026-01-02"],
        [f"{name}-cccc4444 eah", "2 of 6", "unfinished", "2026-01-02"],
    ]
    assert run(capsys, "list", "--runs-dir", str(runs)) == run(capsys, "list", str(runs))


def test_the_list_is_written_for_programs(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "list", str(runs), "--json", str(tmp_path / "x.json"))

    listed = json.loads((tmp_path / "x.json").read_text())["runs"]
    assert [one["path"][-8:] for one in listed] == ["aaaa1111", "aaaa2222", "bbbb3333", "cccc4444"]
    assert {arm: of["answers"] for arm, of in listed[3]["arms"].items()} == {
        "baseline": 6,
        "eah": 2,
    }
    assert listed[1]["settings"]["weights"] == "sha256:2"
    assert listed[1]["total"] == 6


def test_an_empty_folder_has_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out/x.json"

    assert run(capsys, "list", str(tmp_path), "--json", str(output)) == f"no runs in {tmp_path}\n"
    assert result_in(output) == {"runs": []}


def test_a_folder_that_is_not_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert "nowhere is not a folder; pass the folder of" in refused(capsys, "list", "nowhere")
    assert "runs is not a folder" in refused(capsys, "list")


def test_a_run_is_shown_with_settings_and_numbers(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "show", "aaaa1", "--runs-dir", str(runs))

    assert "weights: sha256:1\n" in shown
    assert "decoding: do_sample False, num_beams 1, max_new_tokens 10\n" in shown
    assert "\nquestions: 6\n" in shown
    assert [row[:3] for row in table(shown)] == [
        ["baseline", "random", "50.00 (12.5..87.5)"],
        ["eah", "random", "100.00 (43.9..100.0)"],
    ]


# rescore ---------------------------------------------------------------------------------------


def test_answers_are_scored_again_without_model_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = shutil.copytree(ROOT / "models/tiny-llava", tmp_path / "checkpoint")
    flags = [*pope_flags(tmp_path / "scenes", 2), "--checkpoint", str(checkpoint)]
    assert pope_eval.main([*flags, "--output-dir", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    shutil.rmtree(checkpoint)
    shutil.rmtree(tmp_path / "scenes")
    monkeypatch.setattr(models, "load", None)
    monkeypatch.setattr(models, "describe", None)
    found = only_run(tmp_path / "runs")
    before = state_of(found)

    again = run(capsys, "rescore", str(found), "--json", str(tmp_path / "x.json"))

    assert again.strip() == printed.partition("run folder:")[0].strip()
    metrics = (found / "report/metrics.json").read_text()
    assert result_in(tmp_path / "x.json") == json.loads(metrics)
    assert state_of(found) == before


def says_both(item: Any) -> str:
    """Answer so that the parsers disagree: OPERA's sees a negation, the strict one the yes."""
    return "Yes. There is no other." if item.label == "yes" else "No."


def test_answers_are_read_by_another_parser(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_run(tmp_path / "x-1", {"baseline": says_both}))

    assert table(run(capsys, "rescore", path))[0][2].startswith("50.00")
    strict = run(capsys, "rescore", path, "--parser", "strict")
    assert table(strict)[0][2].startswith("100.00")
    assert "parser strict" in strict
    assert "parser 'strct' is unknown: did you mean" in refused(
        capsys, "rescore", path, "--parser", "strct"
    )


def test_a_benchmark_without_parsers_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(
        capsys, "rescore", OLD_CHAIR, "--runs-dir", str(OLD_RUNS), "--parser", "strict"
    )

    assert sentence.endswith("--parser strict: chair has no parsers; leave it out")


def test_the_question_of_captions_is_that_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"benchmark": "chair", "question": "What is it?"}
    items = [Item(1, "1.jpg", "What is it?"), Item(2, "2.jpg", "What is it?")]
    path = write_run(tmp_path / "x-1", {"baseline": lambda _: "A cat."}, items, **settings)

    run(capsys, "rescore", str(path), "--json", str(tmp_path / "x.json"))

    assert json.loads((tmp_path / "x.json").read_text())["question"] == "What is it?"


def test_unfinished_arms_are_named_and_left_out(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run(capsys, "rescore", "cccc", "--runs-dir", str(runs))

    assert [row[0] for row in table(printed)] == ["baseline"]
    assert "unfinished, not in these numbers: eah" in printed


def test_arms_are_compared_with_any_reference(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run(capsys, "rescore", "aaaa1", "--runs-dir", str(runs), "--reference", "eah")

    assert "vs eah (95 %)" in printed
    assert table(printed)[0][5].startswith("-50.00")
    assert "--reference vcd is not an arm of this run (baseline, eah)" in refused(
        capsys, "rescore", "aaaa1", "--runs-dir", str(runs), "--reference", "vcd"
    )


def test_all_numbers_are_printed_wide(
    runs: Path, capsys: pytest.CaptureFixture[str], wide_tables: None
) -> None:
    printed = run(capsys, "rescore", "aaaa1", "--runs-dir", str(runs), "--wide")

    assert "precision (95 %)" in printed
    assert max(map(len, printed.splitlines())) > WIDTH


# compare ---------------------------------------------------------------------------------------


def test_runs_of_the_same_questions_are_compared_in_pairs(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.json"

    printed = run(
        capsys, "compare", "aaaa1", "aaaa2", "--runs-dir", str(runs), "--json", str(output)
    )

    assert "not paired" not in printed
    assert "weights: sha256:1 | sha256:2" in printed
    assert "| B:baseline - A:baseline | random | +50.00 (+12.5..+87.5) |" in printed
    differences = json.loads(output.read_text())["differences"]
    assert [(d["arm"], d["reference"]) for d in differences] == [
        ("A:eah", "A:baseline"), ("B:baseline", "A:baseline"), ("B:vcd", "A:baseline"),
    ]  # fmt: skip
    assert differences[1]["permutation_test"]["gained"] == 3


def test_compared_answers_are_read_by_another_parser(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(write_run(tmp_path / name, {"baseline": says_both})) for name in "ab"]

    printed = run(capsys, "compare", *paths, "--parser", "strict")

    assert [row[2] for row in table(printed)] == ["100.00 (43.9..100.0)"] * 2


def test_a_reference_of_either_run_is_taken(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ["--runs-dir", str(runs)]

    printed = run(capsys, "compare", "aaaa1", "aaaa2", *found, "--reference", "vcd")

    assert "| A:eah - B:vcd " in printed
    assert main(["compare", "aaaa1", "aaaa2", *found, "--reference", "pai"]) == 2
    assert "--reference pai is an arm of neither run (A:base" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "the questions differ: 1 of A's 6 are not among B's 6"),
        ({"pictures": "bb"}, "the pictures have the same names but different contents"),
    ],
    ids=["questions", "pictures"],
)
def test_other_questions_or_pictures_are_not_compared_in_pairs(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any],
    reason: str,
) -> None:  # fmt: skip
    other = "bbbb"
    if change:
        other = str(write_run(tmp_path / "other", {"baseline": right, "eah": right}, **change))
    output = tmp_path / "x.json"
    flags = ["--runs-dir", str(runs), "--json", str(output)]

    printed = run(capsys, "compare", "aaaa1", other, *flags)

    assert f"not paired: {reason}" in printed
    assert "B:baseline - A:baseline" not in printed
    assert printed.index("A:\n\n") < printed.index("B:\n\n")
    content = json.loads(output.read_text())
    assert content["unpaired"].startswith(reason)
    assert [len(content[name]["results"]) for name in "AB"] == [2, 2]
    assert "vs eah (95 %)" in run(capsys, "compare", "aaaa1", other, *flags, "--reference", "eah")


def test_runs_of_two_benchmarks_are_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(capsys, "compare", OLD_POPE, OLD_CHAIR, "--runs-dir", str(OLD_RUNS))

    assert "A is a run of pope and B of chair; pass two runs of one benchmark" in sentence


# export ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", FORMATS)
def test_an_export_is_printed_or_written(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: str
) -> None:
    flags = ["export", "aaaa1", "--runs-dir", str(runs), "--format", chosen]
    assert main(flags) == 0
    printed = capsys.readouterr().out

    assert main([*flags, "--output", str(tmp_path / "new/x")]) == 0

    assert capsys.readouterr().out == ""
    assert (tmp_path / "new/x").read_text() == printed != ""


def test_csv_is_the_format_if_none_is_named(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.json"
    assert main(["export", "aaaa1", "--runs-dir", str(runs), "--json", str(output)]) == 0

    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))

    assert [(row["arm"], float(row["accuracy"])) for row in rows] == [
        ("baseline", 0.5),
        ("eah", 1.0),
    ]
    assert [one["arm"] for one in json.loads(output.read_text())["results"]] == ["baseline", "eah"]


def test_an_exported_parser_and_reference_are_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_run(tmp_path / "x-1", {"baseline": says_both, "eah": right}))
    flags = ["--parser", "strict", "--reference", "eah", "--format", "json"]

    assert main(["export", path, *flags]) == 0

    content = json.loads(capsys.readouterr().out)
    assert content["parser"] == "strict"
    assert [one["reference"] for one in content["differences"]] == ["eah"]


def test_an_unknown_format_names_the_nearest(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--runs-dir", str(runs), "--format", "latx"]

    assert "format 'latx' is unknown: did you mean 'latex'" in refused(
        capsys, "export", "aaaa1", *flags
    )


@pytest.mark.parametrize("below", ["runs", "report/runs"])
@pytest.mark.parametrize(
    ("action", "flag"),
    [("export", "--output"), ("export", "--json"), ("rescore", "--json"), ("show", "--json"),
     ("compare", "--json"), ("list", "--json")],
)  # fmt: skip
def test_an_output_that_is_recorded_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str, flag: str, below: str
) -> None:
    path = write_run(tmp_path / below / "x-1", {"baseline": right})
    named = {"compare": [str(path)] * 2, "list": [str(tmp_path)]}.get(action, [str(path)])
    (path / "link").symlink_to(path / "arms/baseline/answers.jsonl")
    before = state_of(tmp_path)

    for name in ("arms/baseline/answers.jsonl", "arms/baseline/arm.json", "run.json", "link"):
        sentence = refused(capsys, action, *named, flag, str(path / name))

        assert f"{flag} {path / name} is an input or a record of a run" in sentence
    assert state_of(tmp_path) == before


def test_an_output_may_be_in_the_report_and_be_written_again(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "pope/tiny-llava/opera-random-aaaa1111"
    for _ in range(2):
        assert main(["export", str(path), "--output", str(path / "report/table.csv")]) == 0
        assert main(["list", str(runs), "--json", str(runs / "list.json")]) == 0


# names, old runs, errors, pipes ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aaaa", "2 runs in"),
        ("ffff", "no run in"),
        ("pope", "is not a run folder, since it has no run.json"),
    ],
)
def test_a_name_of_no_single_run_is_one_sentence(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(runs)

    for action in ("show", "rescore", "export"):
        assert message in refused(capsys, action, name, "--runs-dir", ".")


def test_runs_are_looked_up_in_the_folder_runs(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs.parent)

    assert "opera" in run(capsys, "rescore", "aaaa2")


def test_runs_of_version_0_1_are_listed_scored_and_exported_untouched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = state_of(OLD_RUNS)
    folder = ["--runs-dir", str(OLD_RUNS)]

    rows = table(run(capsys, "list", *folder))
    shown = {name: run(capsys, "show", name, *folder) for name in (OLD_POPE, OLD_CHAIR)}
    rescored = run(capsys, "rescore", OLD_POPE, *folder, "--parser", "strict")
    run(capsys, "compare", OLD_POPE, OLD_POPE, *folder)
    for name in (OLD_POPE, OLD_CHAIR):
        for chosen in FORMATS:
            assert main(["export", name, *folder, "--format", chosen]) == 0

    assert state_of(OLD_RUNS) == before
    assert [row[1:3] for row in rows] == [["4 of 4", "finished"]] * 2 + [
        ["18 of 18", "finished"]
    ] * 3
    assert len(table(rescored)) == 12
    assert "parser strict" in rescored
    assert "question: Please describe this image in detail." in shown[OLD_CHAIR]


@pytest.mark.parametrize("action", ["lst", ""])
def test_an_unknown_action_is_one_sentence(capsys: pytest.CaptureFixture[str], action: str) -> None:
    assert f"{action!r} is unknown" in refused(capsys, action)


def test_help_lists_the_actions(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"]):
        printed = run(capsys, *arguments)
        assert all(name in printed for name in ("list", "show", "compare", "rescore", "export"))
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert stop.value.code == 0
    assert "--reference" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["compare", "one"], ["show"], ["list", "--parser", "strict"], ["show", "a", "-x"]]
)
def test_a_bad_command_line_exits_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)

    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


START = "import sys; from eval.runs import main; code = main(sys.argv[1:])"


def test_a_closed_pipe_ends_the_command_quietly_and_torch_is_never_loaded(runs: Path) -> None:
    code = f"{START}; assert 'torch' not in sys.modules; sys.exit(code)"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-c", code, "export", "aaaa1", "--runs-dir", str(runs)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert done.stderr == ""
    assert done.returncode == 141


def test_it_is_started_as_a_script(runs: Path) -> None:
    done = subprocess.run(
        [sys.executable, "eval/runs.py", "show", "ffff", "--runs-dir", str(runs)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("runs: error: no run in")
    assert "Traceback" not in done.stderr
