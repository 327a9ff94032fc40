"""The command against a judge over real HTTP: faults, kills, bounds, the key, bad input."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eval.gpt4v_eval import main
from eval.tasks.chair.task import ChairSettings
from eval.tasks.judge.captions import Format
from eval.tasks.judge.config import JudgeConfig
from eval.tasks.judge.inputs import JudgeInputs
from tests.eval.judge_inputs import (
    flags_for,
    metrics_of,
    rows_of,
    run_folder,
    write_config,
    write_inputs,
)
from tests.eval.judge_stub import (
    LASTING,
    MODEL,
    PASSING,
    RETRY_AFTER_S,
    SECRET,
    Stub,
    log_of,
    prefers_first,
    serve,
    serve_apart,
)

pytestmark = pytest.mark.usefixtures("judge_key")

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "eval/gpt4v_eval.py"]
EACH_USD = (700 * 2 + 60 * 10) / 1e6  # The stub's usage by the prices of the tests.


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    write_inputs(tmp_path, 5)
    return tmp_path


def test_two_hundred_judgements_come_through_every_fault(tmp_path: Path) -> None:
    """Must hold 1: nothing is lost or judged twice, and the result is the undisturbed one."""
    write_inputs(tmp_path / "a", 100)
    write_inputs(tmp_path / "b", 100)
    with serve(Stub(seed=3)) as disturbed:
        assert main(flags_for(tmp_path / "a", disturbed.url)) == 0
    with serve(Stub(seed=3, passing=False)) as quiet:
        assert main(flags_for(tmp_path / "b", quiet.url)) == 0

    faults = {disturbed.fault_of(call.text, 1) for call in disturbed.calls}
    assert faults == {"well", *PASSING, *LASTING}
    planned = 0
    for text in {call.text for call in quiet.calls}:
        attempts = next(n for n in range(1, 7) if disturbed.fault_of(text, n) in
                        ("well", "slow", *LASTING))  # fmt: skip
        assert disturbed.attempts(text) == attempts
        planned += attempts
    assert len(quiet.calls) == 200
    assert len(disturbed.calls) == planned <= 200 * 6
    assert max(disturbed.paid.values()) == 1
    folder, other = run_folder(tmp_path / "a"), run_folder(tmp_path / "b")
    final = [
        row for row in rows_of(folder) if row["outcome"] in ("answered", "refused", "rejected")
    ]
    assert len(final) == len({row["key"] for row in final}) == 200
    assert len(rows_of(folder, "sent")) == len(disturbed.calls)
    for name in ("scores", "judgements", "pictures"):
        assert metrics_of(folder)[name] == metrics_of(other)[name]
    counts = metrics_of(folder)["judgements"]
    assert counts["open"] == 0
    assert all(counts[state] > 0 for state in ("read", "unparsed", "refused", "rejected"))


def test_the_averages_are_those_of_the_replies(inputs: Path, stub: Stub) -> None:
    """An arithmetic of its own: grades parsed by position from what the stub said."""
    assert main(flags_for(inputs, stub.url)) == 0

    grades: dict[str, list[float]] = {"first": [], "second": []}
    for call in stub.calls:
        one, two = (int(word) for word in stub.answer(call.text).split()[1:3])
        swapped = call.text.index("A eah") < call.text.index("A baseline")
        grades["first"].append(two if swapped else one)
        grades["second"].append(one if swapped else two)
    found = metrics_of(run_folder(inputs))["scores"]["accuracy"]
    assert len(stub.calls) == 10
    for arm, values in grades.items():
        assert found[arm]["value"] == pytest.approx(sum(values) / 10)


def test_pictures_are_sent_scaled_down_and_both_answers_in_both_orders(
    inputs: Path, stub: Stub
) -> None:
    assert main(flags_for(inputs, stub.url, image_size=20)) == 0

    orders = set()
    for call in stub.calls:
        (shown,) = [p for p in call.body["messages"][0]["content"] if p["type"] == "image_url"]
        kind, data = shown["image_url"]["url"].split(",")
        assert kind == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (20, 15)
        orders.add(call.text.index("A eah") < call.text.index("A baseline"))
    assert orders == {True, False}


def test_a_second_run_asks_nothing(
    inputs: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(flags_for(inputs, stub.url)) == 0
    before = (run_folder(inputs) / "metrics.json").read_text()
    monkeypatch.delenv("OPENAI_API_KEY")  # It is not needed to look at what is paid for.

    assert main(flags_for(inputs, stub.url)) == 0

    assert len(stub.calls) == 10
    assert (run_folder(inputs) / "metrics.json").read_text() == before


def test_a_run_of_more_pictures_pays_for_the_new_ones_only(inputs: Path, stub: Stub) -> None:
    flags = flags_for(inputs, stub.url)[:-2]
    assert main([*flags, "--num-images", "2", "--single-order"]) == 0
    assert main([*flags, "--num-images", "4"]) == 0

    assert len(stub.calls) == 8
    assert max(stub.paid.values()) == 1
    by_count = {metrics_of(path)["pictures"]["judged"]: metrics_of(path)
                for path in (inputs / "runs/judge" / MODEL).iterdir()}  # fmt: skip
    assert by_count[4]["spent"]["borrowed"] == 2
    assert by_count[4]["spent"]["requests"] == 6
    assert by_count[4]["judgements"]["read"] == 8


@pytest.mark.parametrize(
    "change",
    [{"image_size": 20}, {"image_detail": "low"}, {"max_output_tokens": 900},
     {"temperature": 0.5}, {"reasoning_effort": "low"}, {"judge_protocol": "json"}],
    ids=lambda change: "-".join(change),
)  # fmt: skip
def test_what_decides_a_reply_is_asked_again(
    inputs: Path, stub: Stub, change: dict[str, Any]
) -> None:
    assert main(flags_for(inputs, stub.url)) == 0
    assert main(flags_for(inputs, stub.url, **change)) == 0

    assert len(stub.calls) == 20


def test_another_endpoint_is_another_judge(inputs: Path, stub: Stub) -> None:
    assert main(flags_for(inputs, stub.url)) == 0
    with serve(Stub()) as other:
        assert main(flags_for(inputs, other.url)) == 0

    assert len(other.calls) == 10


def test_killed_and_started_again_pays_for_nothing_twice(inputs: Path, stub: Stub) -> None:
    """Must hold 2: the stub answers six, then holds the others until the process is dead."""
    stub.hold_from = 6
    command = [*COMMAND, *flags_for(inputs, stub.url, judge_workers=3)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: len(finals(inputs)) >= 6 and len(stub.calls) >= 9, process)
        process.send_signal(signal.SIGKILL)
    killed_with = finals(inputs)
    held = [call.text for call in stub.calls][6:]
    assert len(killed_with) == 6
    assert len(held) == 3

    calls_before = len(stub.calls)
    stub.release.set()
    assert main(flags_for(inputs, stub.url, judge_workers=3)) == 0

    again = [call.text for call in stub.calls][calls_before:]
    assert len(again) == len(set(again)) == 4
    recorded = {row["key"]: row["text"] for row in rows_of(run_folder(inputs), "sent")}
    assert not {recorded[key] for key in killed_with} & set(again)
    assert len(finals(inputs)) == 10
    metrics = metrics_of(run_folder(inputs))
    assert metrics["judgements"]["read"] == 10
    assert metrics["spent"]["without_reply"] == 3
    # Those three may have been paid for.
    sent = {row["request"]: row["most_usd"] for row in rows_of(run_folder(inputs), "sent")}
    answered = {row["request"] for row in rows_of(run_folder(inputs))}
    lost = [most for number, most in sent.items() if number not in answered]
    assert len(lost) == 3
    assert metrics["spent"]["usd"] == pytest.approx(10 * EACH_USD + sum(lost))
    assert len(json.loads((run_folder(inputs) / "run.json").read_text())["resumed"]) == 1


def finals(inputs: Path) -> set[str]:
    # The model's folder is made before the run's.
    if not list((inputs / "runs/judge" / MODEL).glob("*")):
        return set()
    path = run_folder(inputs) / "judgements.jsonl"
    content = path.read_bytes() if path.exists() else b""
    rows = [json.loads(line) for line in content.split(b"\n")[:-1]]
    return {row["key"] for row in rows if row.get("outcome") == "answered"}


def wait_until(condition: Any, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 3600
    try:
        while time.monotonic() < deadline and process.poll() is None:
            if condition():
                return
            time.sleep(0.02)
    except BaseException:
        process.kill()  # or whoever waits for its end waits for an hour
        raise
    process.kill()
    raise TimeoutError("it did not come to that within an hour, or the command ended")


def test_a_line_that_was_cut_in_writing_is_asked_again_and_no_other(
    inputs: Path, stub: Stub
) -> None:
    assert main(flags_for(inputs, stub.url)) == 0
    path = run_folder(inputs) / "judgements.jsonl"
    whole = path.read_bytes()
    last = whole[:-1].rfind(b"\n") + 1
    path.write_bytes(whole[: last + 30])

    assert main(flags_for(inputs, stub.url)) == 0

    assert len(stub.calls) == 11
    assert len(finals(inputs)) == 10


STOPS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


@pytest.mark.parametrize(("stop", "status", "said_at_end"), STOPS)
def test_a_stop_waits_for_what_is_paid_for(
    inputs: Path, stub: Stub, stop: signal.Signals, status: int, said_at_end: str
) -> None:
    stub.hold_from = 2
    command = [*COMMAND, *flags_for(inputs, stub.url, judge_workers=3)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(stub.calls) >= 5, process)
        process.send_signal(stop)
        said = said_until("waiting for replies that are already paid for", process)
        assert process.poll() is None  # It waits.
        stub.release.set()
        assert process.stderr is not None
        said += process.stderr.read()
    assert process.returncode == status
    assert f"{said_at_end}; recorded answers are kept" in said
    assert len(finals(inputs)) == len(stub.calls) == 5

    assert main(flags_for(inputs, stub.url)) == 0

    assert len(stub.calls) == 10
    assert max(stub.paid.values()) == 1


def said_until(words: str, process: subprocess.Popen[str]) -> str:
    """Read standard error up to the line with some words."""
    assert process.stderr is not None
    said = ""
    limit = threading.Timer(300, process.kill)  # a command that says something else would wait
    limit.start()
    try:
        while words not in said:
            line = process.stderr.readline()
            assert line, f"it ended without {words!r}: {said}"
            said += line
    finally:
        limit.cancel()
    return said


@pytest.mark.parametrize(("stop", "status", "said_at_end"), STOPS)
def test_a_second_stop_ends_at_once(
    inputs: Path, stub: Stub, stop: signal.Signals, status: int, said_at_end: str
) -> None:
    stub.hold_from = 2
    command = [*COMMAND, *flags_for(inputs, stub.url, judge_workers=3)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(stub.calls) >= 5, process)
        process.send_signal(stop)
        said_until("drops them", process)
        process.send_signal(stop)
        try:
            _, said = process.communicate(timeout=300)  # The stub still holds its replies.
        finally:
            process.kill()
    assert process.returncode == status
    assert f"{said_at_end}; recorded answers are kept" in said
    assert "Traceback" not in said
    assert len(finals(inputs)) == 2


def test_killed_at_random_moments_nothing_is_lost_or_paid_twice(tmp_path: Path) -> None:
    """Only what was under way at a kill is asked again, and it is counted at its most."""
    write_inputs(tmp_path, 30)
    draw, workers, kills = random.Random(0), 3, 4
    log = tmp_path / "log.jsonl"
    with serve_apart(log) as url:
        flags = flags_for(tmp_path, url, judge_workers=workers)
        for _ in range(kills):
            seen = sum(log_of(log)["asked"].values())
            target = seen + draw.randint(1, 12)
            with subprocess.Popen(
                [*COMMAND, *flags], cwd=ROOT, stderr=subprocess.DEVNULL
            ) as process:
                wait_until(lambda: sum(log_of(log)["asked"].values()) >= target, process)  # noqa: B023
                time.sleep(draw.random() / 20)
                process.kill()
            stored = finals(tmp_path)
        assert main(flags) == 0
        asked, paid = log_of(log)["asked"], log_of(log)["paid"]

    assert len(asked) == len(paid) == len(finals(tmp_path)) == 60
    assert stored <= finals(tmp_path)
    folder = run_folder(tmp_path)
    sent, answered = rows_of(folder, "sent"), rows_of(folder)
    assert len(sent) >= sum(asked.values())
    assert len({row["key"] for row in answered}) == len(answered) == 60  # no answer twice
    lost = len(sent) - len(answered)
    assert sum(asked.values()) - 60 <= lost <= kills * workers
    spent = metrics_of(folder)["spent"]
    assert spent["without_reply"] == lost
    replied = {row["request"] for row in answered}
    most = sum(row["most_usd"] for row in sent if row["request"] not in replied)
    assert spent["usd"] == pytest.approx(60 * EACH_USD + most)


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_as_many_requests_are_under_way_as_there_are_workers(
    inputs: Path, stub: Stub, workers: int
) -> None:
    """Must hold 3, without a clock: replies wait until `workers` requests are there at once."""
    barrier = threading.Barrier(workers, timeout=300)
    plain, turn = stub.answer, iter(range(10_000))

    def answer(text: str) -> str:
        # The first goes alone; then whole rounds of workers, as far as ten judgements have them.
        if 1 <= next(turn) <= (9 // workers) * workers:
            barrier.wait()
        return plain(text)

    stub.answer = answer

    assert main(flags_for(inputs, stub.url, judge_workers=workers)) == 0

    assert stub.most_at_once == workers
    assert not barrier.broken


def test_the_key_is_nowhere(inputs: Path) -> None:
    """Must hold 4: the stub sends the key back in replies and in errors of every kind."""
    with serve(Stub(seed=1, answer=lambda text: f"Accuracy: {SECRET}")) as stub:
        done = subprocess.run(
            [*COMMAND, *flags_for(inputs, stub.url), "--report", str(inputs / "report.html")],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert "[key]" in done.stdout
    assert all(call.authorization == f"Bearer {SECRET}" for call in stub.calls)
    assert SECRET not in done.stdout + done.stderr
    files = [path for path in inputs.rglob("*") if path.is_file()]
    assert {"judgements.jsonl", "run.json", "metrics.json", "report.html"} <= {
        path.name for path in files
    }
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


def test_a_wrong_key_is_not_shown_either(
    inputs: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-0123456789")

    assert main(flags_for(inputs, stub.url)) == 2

    said = capsys.readouterr()
    assert "does not accept the key (HTTP 401: Incorrect API key provided: [key].)" in said.err
    assert "sk-wrong" not in said.err + said.out
    assert len(stub.calls) == 1
    assert b"sk-wrong" not in (run_folder(inputs) / "judgements.jsonl").read_bytes()


def test_no_flag_takes_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([f"--api-key={SECRET}", "--answers-1", "a", "--answers-2", "b"])

    assert SECRET not in capsys.readouterr().err


def test_a_judge_that_prefers_the_first_yields_a_tie_that_always_flips(inputs: Path) -> None:
    """Must hold 5."""
    with serve(Stub(answer=prefers_first)) as stub:
        assert main(flags_for(inputs, stub.url)) == 0
        both = metrics_of(run_folder(inputs))["scores"]
        assert main([*flags_for(inputs, stub.url), "--single-order",
                     "--output-dir", str(inputs / "single/runs")]) == 0  # fmt: skip
        single = metrics_of(run_folder(inputs / "single"))["scores"]
    for criterion in ("accuracy", "detailedness"):
        found = both[criterion]
        assert (found["wins_of_second"], found["ties"], found["losses_of_second"]) == (0, 5, 0)
        assert found["second_minus_first"] == {"value": 0.0, "low": None, "high": None}
        assert found["flips"] == {"pictures": 5, "changed": 5, "reversed": 5, "rate": 1.0}
        assert found["sign_test_p"] == 1.0
        # The paper's way takes the preference for a difference.
        assert single[criterion]["losses_of_second"] == 5
        assert single[criterion]["second_minus_first"]["value"] == -5.0
        assert single[criterion]["flips"] is None


def test_a_judge_of_the_answers_alone_does_not_flip(inputs: Path) -> None:
    def prefers_eah(text: str) -> str:
        swapped = text.index("A eah") < text.index("A baseline")
        grades = "9 4" if swapped else "4 9"
        return f"Accuracy: {grades}\n\nDetailedness: {grades}"

    with serve(Stub(answer=prefers_eah)) as stub:
        assert main(flags_for(inputs, stub.url)) == 0

    found = metrics_of(run_folder(inputs))["scores"]["accuracy"]
    assert (found["wins_of_second"], found["second_minus_first"]["value"]) == (5, 5.0)
    assert found["flips"]["rate"] == 0.0
    assert found["sign_test_p"] == pytest.approx(2 * 0.5**5)


def test_the_schema_is_sent_and_its_replies_are_read(inputs: Path) -> None:
    grades = {"reason": "x", "assistant_1": 7, "assistant_2": 7.5}
    reply = json.dumps({"accuracy": grades, "detailedness": grades})
    with serve(Stub(answer=lambda text: reply)) as stub:
        assert main([*flags_for(inputs, stub.url), "--judge-protocol", "json"]) == 0

    assert all(call.body["response_format"]["type"] == "json_schema" for call in stub.calls)
    assert metrics_of(run_folder(inputs))["judgements"]["read"] == 10


def test_replies_that_can_t_be_read_are_shown_and_no_zeros(
    inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(text: str) -> str:
        return "Accuracy: 8,\nDetailedness: 6 5" if "picture 3" in text else prefers_first(text)

    with serve(Stub(answer=answer)) as stub:
        assert main(flags_for(inputs, stub.url)) == 0

    out = capsys.readouterr().out
    found = metrics_of(run_folder(inputs))
    assert found["pictures"] == {"compared": 5, "equal": 0, "judged": 5, "counted": 4}
    assert found["judgements"]["unparsed"] == 2
    assert found["scores"]["accuracy"]["first"]["value"] == 6.5
    assert "over the 4 of 5 pictures" in out
    assert "unparsed: image 3, order 12: accuracy: no two grades" in out
    assert "'Accuracy: 8, Detailedness: 6 5'" in " ".join(out.split())


def test_refusals_are_asked_again_only_on_demand(inputs: Path, stub: Stub) -> None:
    stub.fault = lambda text, attempt: "refusal" if "picture 2" in text else "well"
    assert main(flags_for(inputs, stub.url)) == 0
    assert main(flags_for(inputs, stub.url)) == 0
    assert len(stub.calls) == 10
    stub.fault = None

    assert main([*flags_for(inputs, stub.url), "--ask-again"]) == 0

    assert len(stub.calls) == 12
    assert metrics_of(run_folder(inputs))["judgements"]["read"] == 10


@pytest.mark.parametrize("kind", ["busy", "down"])
def test_retry_after_is_obeyed(inputs: Path, stub: Stub, kind: str) -> None:
    stub.fault = lambda text, attempt: kind if attempt <= 2 else "well"
    stub.retry_after = "0.3"

    assert main([*flags_for(inputs, stub.url), "--num-images", "1", "--single-order"]) == 0

    times = [call.at for call in stub.calls]
    assert len(times) == 3
    assert all(later - at >= 0.3 for at, later in pairwise(times))


def test_told_to_wait_for_very_long_it_gives_up_and_says_so(
    inputs: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.fault = lambda text, attempt: "busy"
    stub.retry_after = "3600"

    assert main(flags_for(inputs, stub.url)) == 2

    assert "judgements in a row failed" in capsys.readouterr().err
    assert len(stub.calls) == 3


@pytest.mark.parametrize("kind", ["busy", "error", "cut", "garbled"])
def test_faults_that_stay_end_after_a_bounded_number_of_requests(
    inputs: Path, stub: Stub, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.fault = lambda text, attempt: kind if "picture 3" in text else "well"

    assert main(flags_for(inputs, stub.url, max_attempts=3)) == 2

    said = capsys.readouterr().err
    assert "2 of 10 judgements are open; all paid replies are kept" in said
    assert len(stub.calls) == 8 + 2 * 3
    stub.fault = None
    assert main(flags_for(inputs, stub.url)) == 0
    assert len(stub.calls) == 14 + 2


@pytest.mark.parametrize("kind", ["rejected", "refusal"])
def test_what_does_not_pass_is_asked_once(inputs: Path, stub: Stub, kind: str) -> None:
    stub.fault = lambda text, attempt: kind if "picture 3" in text else "well"

    assert main(flags_for(inputs, stub.url)) == 0

    assert len(stub.calls) == 10
    (reason,) = {row["reason"] for row in rows_of(run_folder(inputs))
                 if row["outcome"] in ("rejected", "refused")}  # fmt: skip
    assert reason in ("HTTP 400: The picture of [key] is not allowed", "I can't judge that.")


def test_an_endpoint_that_rejects_everything_is_not_asked_everything(
    inputs: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.fault = lambda text, attempt: "rejected"

    assert main(flags_for(inputs, stub.url)) == 2

    assert len(stub.calls) == 3
    assert (
        "3 judgements in a row failed, the last of them with: HTTP 400" in capsys.readouterr().err
    )


@pytest.mark.parametrize("kind", ["slow", "trickle"])
def test_a_slow_reply_is_a_timeout_and_asked_again(inputs: Path, stub: Stub, kind: str) -> None:
    stub.fault = lambda text, attempt: kind if attempt == 1 else "well"
    stub.slow_s = 5.0

    assert main([*flags_for(inputs, stub.url, timeout_s=2.0), "--limit", "1"]) == 0

    outcomes = [row["outcome"] for row in rows_of(run_folder(inputs))]
    assert sorted(outcomes) == ["answered", "answered", "timeout", "timeout"]


def test_max_requests_is_never_exceeded_and_the_run_goes_on_from_there(
    inputs: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.fault = lambda text, attempt: "error" if attempt == 1 else "well"

    assert main([*flags_for(inputs, stub.url), "--max-requests", "9"]) == 2
    assert len(stub.calls) == 9
    assert "stopped at --max-requests 9" in capsys.readouterr().err
    assert main([*flags_for(inputs, stub.url), "--max-requests", "9"]) == 2
    assert len(stub.calls) == 9
    assert "--max-requests 9 leaves no room for one request" in capsys.readouterr().err

    assert main([*flags_for(inputs, stub.url), "--max-requests", "20"]) == 0
    assert len(stub.calls) == 20
    assert max(stub.paid.values()) == 1


def test_max_cost_is_never_exceeded_over_several_starts(inputs: Path, stub: Stub) -> None:
    settings = {"max_output_tokens": 200}
    bound = ["--max-cost", "0.012"]

    assert main([*flags_for(inputs, stub.url, **settings), *bound]) == 2
    first = len(stub.calls)
    assert 0 < first * EACH_USD <= 0.012
    assert main([*flags_for(inputs, stub.url, **settings), *bound]) == 2
    assert len(stub.calls) * EACH_USD <= 0.012

    assert main(flags_for(inputs, stub.url, **settings)) == 0
    assert metrics_of(run_folder(inputs))["spent"]["usd"] == pytest.approx(10 * EACH_USD)


def test_a_judge_that_bills_more_than_thought_is_noticed_by_the_first_request(
    inputs: Path, stub: Stub
) -> None:
    """As an endpoint did that counted a picture's data as text: 66,000 tokens for one."""
    stub.usage = {"prompt_tokens": 66_000, "completion_tokens": 60}
    each = (66_000 * 2 + 60 * 10) / 1e6

    assert main([*flags_for(inputs, stub.url), "--max-cost", "0.5"]) == 2

    assert len(stub.calls) == 3
    assert len(stub.calls) * each <= 0.5


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 10**12, "completion_tokens": 60}])
def test_without_usage_the_most_is_counted(
    inputs: Path, stub: Stub, usage: dict[str, int] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.usage = usage

    assert main(flags_for(inputs, stub.url)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no valid token counts for 10 replies; they count at their highest possible cost" in said

    folder = run_folder(inputs)
    assert metrics_of(folder)["spent"]["usd"] == pytest.approx(
        sum(row["most_usd"] for row in rows_of(folder, "sent"))
    )


def test_an_account_without_credit_stops_the_run_and_no_picture_is_taken_for_rejected(
    inputs: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.raw = lambda _: (402, {"Content-Type": "application/json"}, b'{"error": {}}')

    assert main(flags_for(inputs, stub.url)) == 2

    assert "has no credit left (HTTP 402" in capsys.readouterr().err
    assert len(stub.calls) == 1
    assert not [row for row in rows_of(run_folder(inputs)) if row.get("outcome") == "rejected"]


def test_a_dry_run_sends_nothing_and_says_how_much_it_would_be(
    inputs: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")

    assert main([*flags_for(inputs, stub.url), "--dry-run"]) == 0

    out = capsys.readouterr().out
    assert f"to send: 10 requests to {MODEL} at {stub.url}" in out
    assert "cost: about $0.04, at most $0.1" in out
    assert not stub.calls
    assert not (inputs / "runs").exists()


def test_the_estimate_is_said_before_anything_is_sent(
    inputs: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags_for(inputs, stub.url)) == 0

    assert "to send: 10 requests" in capsys.readouterr().err
    actual, most = len(stub.calls) * 700, rows_of(run_folder(inputs), "sent")
    assert all(row["most_usd"] >= EACH_USD for row in most)
    assert actual == 7000


def test_a_comparison_of_files_needs_no_torch(inputs: Path, stub: Stub) -> None:
    code = (
        "import sys; from eval import gpt4v_eval; status = gpt4v_eval.main(sys.argv[1:]); "
        "print(status, sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *flags_for(inputs, stub.url)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.splitlines()[-1] == "0 []"


def test_answers_can_be_two_methods_of_one_run(inputs: Path, stub: Stub) -> None:
    run = inputs / "run"
    run.mkdir()
    rows = [{"method": method, "image_id": at, "caption": f"A {method} picture {at}."}
            for method in ("opera", "eah") for at in (2, 1)]  # fmt: skip
    (run / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [*flags_for(inputs, stub.url)[4:], "--answers-from", str(run)]

    assert main([*flags, "--method", "opera", "eah"]) == 0

    found = metrics_of(run_folder(inputs))
    assert (found["first"], found["second"], found["pictures"]["judged"]) == ("opera", "eah", 2)


def test_the_first_fifty_pictures_are_judged_by_default(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path, 52)

    assert main([*flags_for(tmp_path, stub.url)[:-2], "--single-order"]) == 0

    assert len(stub.calls) == 50
    assert not any("picture 51 " in call.text for call in stub.calls)
    assert "judging the first 50 of 52 pictures; --num-images 52" in capsys.readouterr().err


def test_without_pictures_the_judge_gets_coco_s_objects(inputs: Path, stub: Stub) -> None:
    truth = inputs / "truth.json"
    truth.write_text(json.dumps({str(at): ["dog", "couch"] for at in range(1, 6)}))
    flags = [word for word in flags_for(inputs, stub.url)]
    at = flags.index("--data-path")
    flags[at : at + 2] = ["--judge-mode", "text", "--ground-truth", str(truth)]

    assert main(flags) == 0

    for call in stub.calls:
        assert [part["type"] for part in call.body["messages"][0]["content"]] == ["text"]
        assert "marked in the image: couch, dog." in call.text
    assert metrics_of(run_folder(inputs))["mode"] == "text"


def bad(inputs: Path, url: str, change: dict[str, Any]) -> list[str]:
    """Return flags with one thing wrong."""
    flags = flags_for(inputs, change.get("url", url), **change.get("settings", {}))
    for name, value in change.get("flags", {}).items():
        flags += [name, value] if value is not None else [name]
    return flags


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flags": {"--judge-model": "stub-jugde"}},
         "has no model 'stub-jugde' (HTTP 404): did you mean 'stub-judge'?; pass another"),
        ({"url": "http://127.0.0.1:9/v1"}, "http://127.0.0.1:9/v1 can't be reached (ConnectError"),
        ({"flags": {"--max-cost": "0.0001"}},
         "--max-cost 0.0001 leaves no room for one request, which may cost $0.0"),
        ({"flags": {"--data-path": "nowhere"}}, "--data-path nowhere is not a folder"),
        ({"flags": {"--answers-2": "absent.jsonl"}}, "absent.jsonl can't be read"),
        ({"flags": {"--beam": "5"}}, "--beam affects how a model answers"),
        ({"flags": {"--method": "eah"}}, "it is unclear which answers to compare"),
        ({"flags": {"--num-images": "0"}}, "each must be >= 1"),
        ({"flags": {"--judge-mode": "text"}}, "pass either --coco_path"),
        ({"flags": {"--judge-mode": "text", "--ground-truth": "t.json", "--data-path": "nowhere"}},
         "--data-path nowhere is not a folder"),
        ({"flags": {"--caption-key": "text"}}, "has no 'text'; its keys are caption"),
        ({"flags": {"--api-key-file": SECRET}}, "file of --api-key-file can't be read"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(
    inputs: Path,
    stub: Stub,
    change: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Must hold 7."""
    assert main(bad(inputs, stub.url, change)) == 2

    errors = error_lines(capsys)
    assert len(errors) == 1
    assert errors[0].startswith("gpt4v_eval: error: ")
    assert message in errors[0]
    assert SECRET not in errors[0]


def error_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if "error:" in line]


def test_no_key_is_one_sentence(
    inputs: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")

    assert main(flags_for(inputs, stub.url)) == 2

    (said,) = error_lines(capsys)
    assert "no key: set the environment variable OPENAI_API_KEY, or pass a file" in said
    assert not (inputs / "runs").exists()


def test_different_pictures_are_one_sentence(
    inputs: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    path = inputs / "captions_eah.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1])
                    + '{"image_id": 77, "caption": "A cat."}\n')  # fmt: skip

    assert main(flags_for(inputs, stub.url)) == 2

    (said,) = error_lines(capsys)
    assert "the answers are about different pictures: 1 image ids only in" in said
    assert "captions_baseline.jsonl (5) and 1 image ids only in" in said
    assert "captions_eah.jsonl (77)" in said


@pytest.mark.parametrize("broken", [None, b"no picture"])
def test_a_picture_that_is_missing_or_broken_is_one_sentence_before_anything_is_paid(
    inputs: Path, stub: Stub, broken: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = inputs / "val2014" / f"COCO_val2014_{4:012}.jpg"
    path.unlink() if broken is None else path.write_bytes(broken)

    assert main(flags_for(inputs, stub.url)) == 2

    (said,) = error_lines(capsys)
    assert ("the first is that of image id 4" if broken is None else "can't be read") in said
    assert not stub.calls


def test_a_picture_that_goes_away_meanwhile_stops_the_run_and_nothing_paid_is_lost(
    inputs: Path, stub: Stub, capsys: pytest.CaptureFixture[str], inputs_change: None
) -> None:
    plain = stub.answer

    def answer(text: str) -> str:
        (inputs / "val2014" / f"COCO_val2014_{3:012}.jpg").unlink(missing_ok=True)
        return plain(text)

    stub.answer = answer

    assert main(flags_for(inputs, stub.url, judge_workers=3)) == 2

    (said,) = error_lines(capsys)
    assert "COCO_val2014_000000000003.jpg can't be read" in said
    assert len(finals(inputs)) == len(stub.calls) > 0


def test_settings_of_judge_and_model_have_different_names() -> None:
    """One command takes both, and a flag goes to the settings that have its name."""
    of_model = {item.name for item in fields(ChairSettings)}
    shared = {"data_path", "output_dir", "coco_path", "ground_truth", "dry_run", "json",
              "overwrite"}  # fmt: skip

    assert not of_model & {item.name for item in fields(JudgeConfig)}
    assert of_model & {item.name for item in fields(JudgeInputs)} == shared
    assert not of_model & {item.name for item in fields(Format)}


def test_an_absent_sdk_names_the_extra(inputs: Path, stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow/openai.py").write_text("raise ModuleNotFoundError('openai')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'shadow'}:{ROOT}"}

    done = subprocess.run(
        [*COMMAND, *flags_for(inputs, stub.url)],
        cwd=ROOT, capture_output=True, text=True, env=environment,
    )  # fmt: skip

    assert done.returncode == 2
    assert "pip install '.[judge]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("start", [COMMAND, [sys.executable, "-m", "eval.gpt4v_eval"]])
def test_both_ways_to_start_it_work(start: list[str]) -> None:
    done = subprocess.run([*start, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "--judge-model" in done.stdout
    assert "--max-cost" in done.stdout
    assert "--beam" in done.stdout


def test_the_stub_tells_slow_from_well(tmp_path: Path) -> None:
    """What the other tests stand on: the plan has every fault, and passing ones pass."""
    stub = Stub(seed=3)
    texts = [f"text {at}" for at in range(100)]

    assert {stub.fault_of(text, 1) for text in texts} == {"well", *PASSING, *LASTING}
    assert {stub.fault_of(text, 4) for text in texts} == {"well", *LASTING}
    assert RETRY_AFTER_S > 0
    assert write_config(tmp_path, "http://h").is_file()


def test_pictures_may_have_names_for_ids_and_captions_half_a_surrogate_pair(
    tmp_path: Path, stub: Stub
) -> None:
    names = ("garden/1.webp", "kitchen.png")
    for name in names:
        path = tmp_path / "val2014" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (90, 80, 200)).save(path)
    for arm in ("baseline", "eah"):
        rows = [{"image_id": name, "caption": f"A {arm} {name}. \ud83d"} for name in names]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"captions_{arm}.jsonl").write_text(text)

    page = tmp_path / "page.html"
    assert main([*flags_for(tmp_path, stub.url), "--report", str(page)]) == 0
    calls = len(stub.calls)
    assert main(flags_for(tmp_path, stub.url)) == 0

    assert len(stub.calls) == calls == 4
    assert {row["image_id"] for row in rows_of(run_folder(tmp_path))} == set(names)
    assert page.read_text(encoding="utf-8").count("data:image/jpeg") == 2


def test_a_fault_of_ours_does_not_write_the_key_down(
    inputs: Path,
    stub: Stub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    secret = "sk-of-a-file-0123456789"
    file = tmp_path / "key"
    file.write_text(secret)
    file.chmod(0o600)
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def faulty(*_: Any, **__: Any) -> Any:
        raise LookupError(f"{'x' * 185} {secret}")

    monkeypatch.setattr("eval.gpt4v_eval.plan_judging", faulty)

    assert main([*flags_for(inputs, stub.url), "--api-key-file", str(file)]) == 1

    (details,) = tmp_path.glob("eah-bug-*.txt")
    said = capsys.readouterr().err + details.read_text()
    assert "a bug in EAH, please report it (LookupError" in said
    assert not any(secret[at : at + 8] in said for at in range(len(secret) - 7))
