"""Pictures whose two texts are equal: never asked, in no number, counted in what is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from math import isnan
from pathlib import Path

import pytest

from eval.gpt4v_eval import main
from eval.tasks.judge.requests import Arm, Pair
from eval.tasks.judge.scoring import Flips
from tests.eval.judge_inputs import flags_for, metrics_of, rows_of, run_folder, write_inputs
from tests.eval.judge_stub import Stub, prefers_first, serve

pytestmark = pytest.mark.usefixtures("judge_key")

EQUAL = (
    "2 of 6 pictures (33 %) have two equal texts; they are not judged and not counted in any number"
)


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serve(Stub(answer=prefers_first)) as one:
        yield one


def with_equal_texts(folder: Path, ids: tuple[int, ...]) -> Path:
    """Write six pictures; both methods say the same of some, up to spaces around it."""
    write_inputs(folder, 6)
    for name in ("baseline", "eah"):
        path = folder / f"captions_{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            if row["image_id"] in ids:
                row["caption"] = "The same." if name == "eah" else " The same.\n"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_no_request_is_made_and_no_number_counts_them(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_equal_texts(tmp_path, (2, 5))

    assert main([*flags_for(folder, stub.url), "--report", str(tmp_path / "page.html")]) == 0

    printed = capsys.readouterr()
    assert len(stub.calls) == 8
    assert not any("The same." in call.text for call in stub.calls)
    assert EQUAL in printed.out
    assert f"not sent: {EQUAL}" in printed.err
    assert "fewer than 50" in printed.out
    found = metrics_of(run_folder(folder))
    assert found["pictures"] == {"compared": 6, "equal": 2, "judged": 4, "counted": 4}
    for result in found["scores"].values():
        assert result["wins_of_second"] + result["ties"] + result["losses_of_second"] == 4
        assert result["flips"] == {"pictures": 4, "changed": 4, "reversed": 4, "rate": 1.0}
    page = (tmp_path / "page.html").read_text()
    assert EQUAL in page.replace("\N{NO-BREAK SPACE}", " ").replace("&nbsp;", " ")
    assert page.count("<article") == 4


def test_they_are_in_the_estimate_of_a_dry_run(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_equal_texts(tmp_path, (2, 5))

    assert main([*flags_for(folder, stub.url), "--dry-run"]) == 0

    printed = capsys.readouterr().out
    assert "to send: 8 requests" in printed
    assert printed.endswith(f"not sent: {EQUAL}\n")
    assert stub.calls == []


def test_without_them_nothing_is_said_of_them(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags_for(with_equal_texts(tmp_path, ()), stub.url)) == 0

    assert "equal texts" not in "".join(capsys.readouterr())
    assert metrics_of(run_folder(tmp_path))["pictures"]["equal"] == 0


def test_where_all_texts_are_equal_nothing_is_asked(
    tmp_path: Path,
    stub: Stub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    folder = with_equal_texts(tmp_path, tuple(range(1, 7)))

    assert main([*flags_for(folder, stub.url), "--json", str(tmp_path / "out.json")]) == 0

    printed = capsys.readouterr()
    assert (
        printed.out
        == "nothing to judge: baseline and eah have the same answers for all 6 pictures\n"
    )
    assert printed.err == ""
    assert stub.calls == []
    assert not (folder / "runs").exists()
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["pictures"] == {"compared": 6, "equal": 6, "judged": 0, "counted": 0}
    assert content["scores"] == {}


def test_judgements_of_them_by_older_runs_stay_and_are_ignored(
    tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older run judged all pictures; the folder's name is the same now."""
    folder = with_equal_texts(tmp_path, (2, 5))
    with monkeypatch.context() as patch:
        patch.setattr(Pair, "equal", [])
        assert main(flags_for(folder, stub.url)) == 0
    path = run_folder(folder)
    before, older = rows_of(path), metrics_of(path)
    assert len(before) == 12
    shutil.copy(path / "metrics.json", tmp_path / "older.json")

    assert main(flags_for(folder, stub.url)) == 0

    assert run_folder(folder) == path
    assert rows_of(path) == before
    assert len(stub.calls) == 12
    found = metrics_of(path)
    assert older["pictures"]["judged"] == 6
    assert found["pictures"]["judged"] == 4
    assert found["scores"]["accuracy"]["flips"]["pictures"] == 4
    assert found["judgements"]["read"] == 8


def test_equal_means_equal_without_the_spaces_around() -> None:
    first = {1: "A dog.", 2: "A dog. ", 3: "A  dog.", 4: "a dog.", 5: ""}
    second = {1: "A dog.", 2: "\nA dog.", 3: "A dog.", 4: "A dog.", 5: " "}

    assert Pair(Arm("a", first, ""), Arm("b", second, "")).equal == [1, 2, 5]


def test_a_flip_rate_without_pictures_is_no_number() -> None:
    assert isnan(Flips(0, 0, 0).rate)
    assert Flips(0, 0, 0).as_dict()["rate"] is None
