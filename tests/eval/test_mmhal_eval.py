"""MMHal-Bench as a user runs it: a model's answers, a judge over real HTTP, resuming, bad input."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eval import evaluate, runs
from eval.mmhal_eval import main
from scripts.scenes.make import write_scenes
from tests.eval.judge_inputs import metrics_of, rows_of, run_folder, write_config
from tests.eval.judge_stub import MODEL, SECRET, Stub, serve
from tests.eval.mmhal_inputs import (
    TEMPLATE,
    answered,
    asked_about,
    replying,
    rows,
    write,
    write_answers,
)
from tests.eval.results import result_in
from tests.eval.tables import table_rows
from tests.eval.test_gpt4v_eval import wait_until

pytestmark = pytest.mark.usefixtures("judge_key")

ROOT = Path(__file__).resolve().parents[2]
FEW = 12


def flags_for(folder: Path, url: str, *names: str, **settings: Any) -> list[str]:
    """Write answers of some arms to the first questions, and return the flags that judge them."""
    files = [
        write(folder / f"answers_{name}.json", answered(name)[:FEW]) for name in names or ("a",)
    ]
    return [
        "--answers", *map(str, files),
        "--template", str(write(folder / "template.txt", TEMPLATE)),
        "--judge-config", str(write_config(folder, url, **settings)),
        "--output-dir", str(folder / "runs"),
    ]  # fmt: skip


def always(text: str) -> Any:
    return lambda _: text


def test_golden_replies_come_out_as_ours_and_as_the_script_s(
    shared: Path, tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = json.loads((shared / "golden/benchmarks/mmhal.json").read_text())["cases"]
    stub.answer = replying({name: of["judge_texts"] for name, of in cases.items()})
    flags = flags_for(tmp_path, stub.url, "clean")
    files = write_answers(tmp_path, "clean", "odd")
    found = tmp_path / "found.json"

    status = main([*flags, "--answers", *map(str, files), "--json", str(found)])

    assert status == 0
    assert len(stub.calls) == 192
    content = result_in(found)
    for name, case in cases.items():
        script = content["arms"][name]["as_the_script"]
        by_type = [case["scores"][at::8] for at in range(8)]
        assert script["average_score"] == pytest.approx(sum(case["scores"]) / 96, abs=1e-9)
        assert script["hallucination_rate"] == pytest.approx(sum(case["hallucination"]) / 96)
        assert script["by_type"] == pytest.approx([sum(of) / 12 for of in by_type], abs=1e-9)
    clean, odd = content["arms"]["clean"], content["arms"]["odd"]
    assert clean["average_score"]["value"] == pytest.approx(sum(cases["clean"]["scores"]) / 96)
    odd_ones = ("Rating: 10", "Rating: 6.5", "Rating: 3 or Rating: 5", "Score: 6", "No score given")
    unreadable = sum(text in odd_ones for text in cases["odd"]["judge_texts"])
    assert odd["judgements"]["unparsed"] == 96 - odd["n"] == unreadable > 5
    assert odd["read_differently_by_the_script"] == unreadable
    out = capsys.readouterr().out
    kinds = cases["odd"]["printed"][2].rpartition(": ")[2].replace(",", " ")
    assert ["odd", "2.81", "0.46", kinds, f"{unreadable} of 96"] in table_rows(out)
    assert "judge stub-judge, temperature 0, template SHA-256" in out
    assert content["judge"] == [MODEL]
    assert content["differences"]["odd"]["n"] == odd["n"]


def test_the_judge_reads_text_alone_at_temperature_0(tmp_path: Path, stub: Stub) -> None:
    stub.answer = always("Rating: 3")

    assert main(flags_for(tmp_path, stub.url, judge_protocol="json", judge_mode="image")) == 0

    row = answered("a")[0]
    expected = TEMPLATE.format("Cup, Thing 0", row["question"], row["gt_answer"],
                               row["model_answer"])  # fmt: skip
    by_question = {asked_about(call.text)[1]: call for call in stub.calls}
    assert by_question[0].text == expected
    assert "a says {} {0} about" in expected
    assert by_question[0].body == {
        "model": MODEL, "max_completion_tokens": 1200, "temperature": 0.0,
        "messages": [{"role": "user", "content": [{"type": "text", "text": expected}]}],
    }  # fmt: skip


def test_a_folder_of_replies_is_listed_and_not_taken_for_damaged(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer = always("Rating: 3")
    assert main(flags_for(tmp_path, stub.url)) == 0
    (path,) = (file.parent for file in tmp_path.rglob("run.json"))
    capsys.readouterr()

    assert runs.main(["list", str(tmp_path)]) == 0
    listed = capsys.readouterr()
    assert runs.main(["show", str(path)]) == 2

    assert "replies" in listed.out
    assert "see its report" in listed.out
    assert listed.err == ""
    assert "contains replies of a judge, not answers; run eval/gpt4v_eval.py or" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("flag", "in_file", "sent"),
    [([], 0.5, 0.5), (["--temperature", "1"], 0.5, 1.0), (["--temperature", "none"], 0.5, None)],
)
def test_temperature_is_the_flag_s_then_the_file_s(
    tmp_path: Path, stub: Stub, flag: list[str], in_file: float, sent: float | None
) -> None:
    stub.answer = always("Rating: 3")

    assert main([*flags_for(tmp_path, stub.url, temperature=in_file), *flag]) == 0

    assert {call.body.get("temperature") for call in stub.calls} == {sent}


def test_nothing_is_asked_twice_and_another_arm_pays_for_itself_alone(
    tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.answer = always("Rating: 3")
    assert main(flags_for(tmp_path, stub.url, "a")) == 0
    assert main(flags_for(tmp_path, stub.url, "a", "b")) == 0
    assert len(stub.calls) == 2 * FEW
    monkeypatch.delenv("OPENAI_API_KEY")

    assert main(flags_for(tmp_path, stub.url, "a", "b")) == 0
    assert main(flags_for(tmp_path, stub.url, "b")) == 0
    assert main(flags_for(tmp_path, stub.url, "c")) == 2

    assert len(stub.calls) == 2 * FEW


def test_killed_and_started_again_pays_for_nothing_twice(tmp_path: Path, stub: Stub) -> None:
    stub.answer, stub.hold_from = always("Rating: 3"), 4
    flags = flags_for(tmp_path, stub.url, judge_workers=2)
    command = [sys.executable, "eval/mmhal_eval.py", *flags]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: len(stub.calls) >= 6 and kept(tmp_path) >= 4, process)
        process.send_signal(signal.SIGKILL)
    stub.release.set()

    assert main(flags) == 0

    assert len(stub.calls) == FEW + 2
    assert metrics_of(run_folder(tmp_path))["spent"]["without_reply"] == 2
    assert metrics_of(run_folder(tmp_path))["arms"]["a"]["n"] == FEW


def kept(folder: Path) -> int:
    paths = (folder / "runs").glob("judge/*/*/judgements.jsonl")
    return sum(path.read_bytes().count(b'"answered"') for path in paths)


def test_bounds_stop_it_and_hold_for_the_run_as_a_whole(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer = always("Rating: 3")
    flags = flags_for(tmp_path, stub.url)

    assert main([*flags, "--max-requests", "5"]) == 2
    said = capsys.readouterr()
    assert "stopped at --max-requests 5: 7 of 12 judgements are open" in said.err
    assert f"replies: 5 read, 0 unparsed, 0 refused, 0 rejected, {FEW - 5} open" in said.out
    assert main([*flags, "--max-cost", "0.0001"]) == 2
    assert "--max-cost 0.0001 leaves no room for one request" in capsys.readouterr().err

    assert len(stub.calls) == 5


def test_unreadable_and_refused_replies_are_counted_and_asked_again_on_demand(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer = lambda text: "Rating: 10" if asked_about(text)[1] < 2 else "Rating: 6"
    stub.fault = lambda text, n: "refusal" if (asked_about(text)[1], n) == (2, 1) else "well"
    flags = flags_for(tmp_path, stub.url)

    assert main(flags) == 0
    assert main(flags) == 0
    assert len(stub.calls) == FEW
    out = capsys.readouterr().out
    assert "replies: 9 read, 2 unparsed, 1 refused" in out
    (row, *_) = (cells for cells in table_rows(out) if cells[0] == "a")
    assert row[1].startswith("6.00 (")
    assert row[2].startswith("0.0 (")
    assert row[3:] == ["9", "3"]
    assert "unreadable: a, question 1: rating '10' is not a whole number from 0 to 6" in out

    stub.answer = lambda text: "Rating: 10" if asked_about(text)[1] < 1 else "Rating: 0"
    assert main([*flags, "--ask-again", "--dry-run"]) == 0
    assert "to send: 3 requests" in capsys.readouterr().out
    assert main([*flags, "--ask-again"]) == 0

    assert len(stub.calls) == FEW + 3
    assert metrics_of(run_folder(tmp_path))["arms"]["a"]["n"] == FEW - 1
    # Another run takes the answer that can be read, and not the one before it.
    assert main(flags_for(tmp_path, stub.url, "a", "b")) == 0
    (other,) = (tmp_path / "runs/judge" / MODEL).glob("*-2arms-*")
    taken = [row["text"] for row in rows_of(other) if row.get("borrowed_from")]
    assert len(taken) == FEW
    assert taken.count("Rating: 10") == 1


def test_arms_are_compared_with_the_reference(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    score = {"a": 1, "b": 5, "c": 3}
    stub.answer = lambda text: f"Rating: {score[asked_about(text)[0]]}"

    assert main([*flags_for(tmp_path, stub.url, "a", "b", "c"), "--reference", "b"]) == 0

    out = capsys.readouterr().out
    table = table_rows(out)
    assert [row[0] for row in table if " - " in row[0]] == ["a - b", "c - b"]
    found = metrics_of(run_folder(tmp_path))["differences"]
    assert found["a"]["average_score"]["value"] == -4
    assert found["a"]["hallucination_rate"]["value"] == 1
    p_value = 2 / 2**FEW
    assert found["a"]["average_score_test"]["p_value"] == pytest.approx(p_value)
    assert found["a"]["p_holm"] == pytest.approx(2 * p_value)
    assert "p of scores after Holm's correction: a 0.00098, c 0.00098" in out
    assert "note: the benchmark has 96 questions, these are 12" in out
    assert "summarize_gpt_mmhal.py needs 96 replies, but some are missing for a, b, c" in out
    assert "order" not in out


def test_types_of_moved_rows_are_ours_and_the_script_s_are_left_out(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer = lambda text: f"Rating: {min(asked_about(text)[1] % 8, 6)}"
    flags = flags_for(tmp_path, stub.url)
    moved = write(tmp_path / "moved.json", list(reversed(answered("a"))))

    assert main([*flags, "--answers", str(moved)]) == 0

    out = capsys.readouterr().out
    kinds = {row[0]: row[2] for row in table_rows(out) if len(row) == 3}
    assert kinds["attribute"] == "0.00 (0.00..1.45)"
    assert kinds["counting"].startswith("3.00")
    assert "the questions are not in the benchmark's order" in out
    assert ["moved", "3.38", "0.38", "n/a", "0 of 96"] in table_rows(out)


def test_a_dry_run_sends_nothing(
    tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")

    assert main([*flags_for(tmp_path, stub.url), "--dry-run"]) == 0

    assert f"to send: {FEW} requests to {MODEL}" in capsys.readouterr().out
    assert not stub.calls
    assert not (tmp_path / "runs").exists()


def test_a_model_answers_and_the_judge_is_asked_about_that(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path, count=2, seed=2014)
    names = sorted(path.name for path in (tmp_path / "val2014").iterdir())
    content = [{**row, "image_src": f"https://farm.example/{names[at % 2]}"}
               for at, row in enumerate(rows())]  # fmt: skip
    questions = write(tmp_path / "response_template.json", content)
    asking = [
        "--task", "mmhal", "--model", "tiny-llava", "--device", "cpu", "--limit", "3",
        "--questions", str(questions), "--data-path", str(tmp_path / "val2014"),
        "--max-new-tokens", "5", "--output-dir", str(tmp_path / "runs"),
    ]  # fmt: skip
    assert evaluate.main(asking) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("next: ")]
    words = shlex.split(line.removeprefix("next: "))
    assert words[:3] == ["python", "eval/mmhal_eval.py", "--answers"]
    report = Path(words[3]).parent
    assert [Path(word).name for word in words[3:5]] == ["answers_baseline.json", "answers_eah.json"]
    written = json.loads(Path(words[4]).read_text())
    assert [{**row, "model_answer": ""} for row in written] == content
    assert all(isinstance(row["model_answer"], str) for row in written[:3])
    assert all(row["model_answer"] is None for row in written[3:])

    stub.answer = always("Rating: 4")
    judged = [*flags_for(tmp_path, stub.url), "--reference", "baseline"]
    assert main([*judged, "--answers", *words[3:5]]) == 0
    calls = len(stub.calls)
    assert main([*judged, "--answers", str(report.parent), "--questions", str(questions)]) == 0

    assert 3 <= calls == len(stub.calls) <= 6  # equal answers are one request
    assert "eah: 3 of 96 questions answered" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--template", "nowhere.txt"], "nowhere.txt can't be read"),
        (["--answers", "nowhere.json"], "nowhere.json can't be read"),
        (
            ["--answers", "."],
            "is a run folder, which has no reference answers: pass the question "
            "file of the run as --questions",
        ),
        (["--reference", "aa"], "reference 'aa' is unknown: did you mean 'a'"),
        (["--temperature", "hot"], "'hot': pass a number of at least 0, or none to send none"),
        (["--temperature", "-1"], "--temperature '-1': pass a number of at least 0"),
        (["--judge-model", " "], "no judge is set: pass --judge-model"),
        (["--json", "{answers}"], "is an input or a record of a run"),
        (["--judge-model", SECRET], "--judge-model contains the key"),
        (["--max-cost", "0"], "max_cost=0.0, but a number above 0 is needed"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    given = flags_for(tmp_path, stub.url)
    words = [word.format(answers=given[1]) for word in flags]

    assert main([*given, *words]) == 2

    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("mmhal_eval: error: ")
    assert message in said
    assert SECRET not in said
    assert not stub.calls


def test_what_is_missing_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(Stub()) as judge:
        flags = flags_for(tmp_path, judge.url)
        monkeypatch.delenv("OPENAI_API_KEY")
        for given, message in (
            (flags[2:], "no answers: pass --answers"),
            (
                [*flags[:2], *flags[4:]],
                "no template: pass the file with the judge's prompt as --template",
            ),
            (flags, "no key: set the environment variable OPENAI_API_KEY"),
        ):
            assert main(given) == 2
            assert message in capsys.readouterr().err
        assert not judge.calls
    assert not (tmp_path / "runs").exists()
