"""Kill -9 at any moment, also while something is written: no row is lost, none is asked twice.

EAH_TEST_KILLS=50 kills each command so often.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.eval.asking import ASKED
from tests.eval.forks import Forks
from tests.eval.judge_inputs import flags_for, rows_of, run_folder, write_inputs
from tests.eval.judge_stub import SECRET, Stub, serve
from tests.eval.small_runs import lines_of, only_run, pope_flags

KILLS = int(os.environ.get("EAH_TEST_KILLS", "3"))
ARMS = ("baseline", "eah")
Rows = dict[str, list[bytes]]


def recorded(root: Path, name: str) -> Rows:
    """Return the whole lines of all files of a name below a folder."""
    return {
        str(path.relative_to(root)): path.read_bytes().splitlines(keepends=True)
        for path in root.rglob(name)
    }


def kill_at_random(
    server: Forks, start: Callable[[], int], rng: random.Random, longest_s: float
) -> bool:
    """Start a command and kill it after a random time; return whether it still ran."""
    process = start()
    end = time.monotonic() + rng.uniform(0, longest_s)
    while (running := server.is_running(process)) and time.monotonic() < end:
        time.sleep(0.005)
    if running:
        os.kill(process, signal.SIGKILL)
    ended = server.wait(process)
    assert ended.status in (0, -signal.SIGKILL), ended.err
    return ended.status != 0


def time_of(server: Forks, process: int) -> float:
    """Return the seconds that a command takes which nobody kills."""
    begun = time.monotonic()
    ended = server.wait(process)
    assert ended.status == 0, ended.err
    return time.monotonic() - begun


@pytest.mark.parametrize("benchmark", ["pope", "chair"])
def test_no_answer_is_lost_or_asked_again(server: Forks, tmp_path: Path, benchmark: str) -> None:
    rng = random.Random(19)
    flags = pope_flags(tmp_path / "scenes", 4)
    module = "eval.pope_eval"
    if benchmark == "chair":
        flags, module = flags[:6], "eval.chair_eval"
        flags += ["--coco_path", str(tmp_path / "scenes/annotations"), "--max-new-tokens", "12",
                  "--num-images", "4"]  # fmt: skip
    flags += ["--method", *ARMS, "--batch-size", "2", "--num-workers", "0"]
    root, noted, kills = tmp_path / "killed", tmp_path / "asked", 0

    def start(to: Path = root) -> int:
        return server.start(
            [*flags, "--output-dir", str(to)], {ASKED: str(noted)}, module=module,
            before="tests.eval.asking:slow_and_noted",
        )  # fmt: skip

    took = time_of(server, start(tmp_path / "undisturbed"))
    whole = recorded(tmp_path / "undisturbed", "answers.jsonl")
    noted.write_bytes(b"")
    while kills < KILLS:
        kept, before = recorded(root, "answers.jsonl"), noted.read_bytes().splitlines()
        killed = kill_at_random(server, start, rng, took)
        kills += killed
        now = recorded(root, "answers.jsonl")
        for name, lines in kept.items():
            assert set(lines) <= set(now[name]), f"rows of {name} are lost"
        answered = {
            (Path(name).parent.name, key_of(line)) for name, lines in kept.items() for line in lines
        }
        for line in noted.read_bytes().splitlines()[len(before) :]:
            arm, _, key = line.decode().partition(" ")
            assert (arm, key) not in answered, "asked although its answer was on the disk"
        if not killed:
            assert without_costs(now) == without_costs(whole)
            shutil.rmtree(root)
            noted.write_bytes(b"")
    assert server.wait(start()).status == 0
    assert without_costs(recorded(root, "answers.jsonl")) == without_costs(whole)
    # All that a kill can waste is the batch that was under way.
    asked = Counter(noted.read_bytes().splitlines())
    assert sum(asked.values()) - len(asked) <= 2 * KILLS
    run = only_run(root, benchmark)
    assert all(lines_of(run, arm) for arm in ARMS)


def key_of(line: bytes) -> str:
    record = json.loads(line)
    return str((record.get("part", ""), record["id"]))


def without_costs(rows: Rows) -> dict[str, list[str]]:
    """Return rows by arm without the last digits of p_yes."""
    return {
        Path(name).parent.name: [
            json.dumps({**(row := json.loads(line)), "p_yes": round(row.get("p_yes") or 0, 4)})
            for line in lines
        ]
        for name, lines in rows.items()
    }


def test_no_judgement_is_lost_or_paid_twice(server: Forks, tmp_path: Path) -> None:
    rng = random.Random(19)
    write_inputs(tmp_path, 5)
    with serve(Stub(latency_s=0.02)) as judge:
        flags = flags_for(tmp_path, judge.url, judge_workers=2)

        def start() -> int:
            return server.start(
                flags, {"OPENAI_API_KEY": SECRET}, module="eval.gpt4v_eval",
                before="tests.eval.asking:slow",
            )  # fmt: skip

        took = time_of(server, start())
        total, kills, seen = len(judge.calls), 0, len(judge.calls)
        shutil.rmtree(tmp_path / "runs")
        while kills < KILLS:
            before = content_of(tmp_path)
            killed = kill_at_random(server, start, rng, took)
            kills += killed
            now, sent = content_of(tmp_path), [call.text for call in judge.calls[seen:]]
            seen = len(judge.calls)
            assert now.startswith(before[: before.rfind(b"\n") + 1]), "a line is lost"
            assert not answered_in(before) & set(sent), "paid twice"
            assert len(set(sent)) == len(sent)
            if not killed:
                assert len(answered_in(now)) == total
                shutil.rmtree(tmp_path / "runs")
        assert server.wait(start()).status == 0
    rows = rows_of(run_folder(tmp_path))
    assert len({row["key"] for row in rows if row["outcome"] == "answered"}) == total


def content_of(folder: Path) -> bytes:
    """Return what is recorded of the only comparison; nothing before it began."""
    found = list((folder / "runs").glob("judge/*/*/judgements.jsonl"))
    return found[0].read_bytes() if found else b""


def answered_in(content: bytes) -> set[str]:
    """Return the texts whose reply is in whole lines of a file."""
    rows = [json.loads(line) for line in content.split(b"\n")[:-1]]
    texts = {row["request"]: row["text"] for row in rows if row["event"] == "sent"}
    return {texts[row["request"]] for row in rows if row.get("outcome") == "answered"}
