"""The whole task: a model describes scenes, arms are compared, and runs are scored again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval import runs
from eval.errors import EvaluationError
from eval.evaluate import main
from eval.files.answers import Answer
from eval.output.report import Report, report_of
from eval.stats.intervals import mcnemar
from eval.tasks.amber.generative import AmberGenerative
from eval.tasks.amber.settings import GenerativeSettings
from tests.eval.small_runs import only_run
from tests.eval.tables import table_rows
from tests.eval.tasks.amber.invented import write_amber, write_scenes_of_amber

pytestmark = pytest.mark.usefixtures("nltk_data")

BASE = ["A dog under the sky. There is a cat.", "A man and a boat.", ""]
OTHER = ["A dog and a table under the sky.", "A woman, a man and a boat; ships.", "The TV."]


def task(folder: Path, **settings: Any) -> AmberGenerative:
    return AmberGenerative(GenerativeSettings(questions=write_amber(folder), **settings))


def report(folder: Path, **arms: Sequence[str]) -> Report:
    kind = task(folder)
    answers = {
        arm: [Answer(item, text, finished=bool(text))
              for item, text in zip(kind.items(), texts, strict=True)]
        for arm, texts in arms.items()
    }  # fmt: skip
    return report_of(kind, answers)


def test_numbers_are_exact_fractions_beside_those_that_amber_prints(tmp_path: Path) -> None:
    content = report(tmp_path, baseline=BASE, eah=OTHER).as_dict()

    base, eah = ({n: of["value"] for n, of in r["numbers"].items()} for r in content["results"])
    # Mentions: dog, sky, cat; man, boat. Of 3 + 3 + 1 true slots, dog, sky and person are named.
    assert base == {
        "chair": 2 / 5, "cover": 3 / 7, "hal": 2 / 3, "cog": 2 / 5, "words": 14 / 3,
        "cut": 1 / 3, "empty": 1 / 3,
    }  # fmt: skip
    # Mentions: dog, table, sky; woman, man, boat, ship; TV.
    assert eah["chair"] == 2 / 8
    assert eah["cover"] == 5 / 7
    assert content["reference"]["baseline"] == {"CHAIR": 40.0, "Cover": 42.9, "Hal": 66.7,
                                                "Cog": 40.0}  # fmt: skip
    assert content["counts"]["eah"] == {"hallucinated": 2, "mentions": 8, "covered": 5, "truth": 7,
                                        "marked": 1, "hallu": 5, "free": 2}  # fmt: skip


def test_chair_is_compared_and_hal_is_tested(tmp_path: Path) -> None:
    found = report(tmp_path, baseline=BASE, eah=OTHER)

    content, text = found.as_dict(), found.text()
    assert not found.tested
    (difference,) = content["differences"]
    assert difference["permutation_test"] is None
    assert difference["numbers"]["chair"]["value"] == pytest.approx(2 / 8 - 2 / 5)
    (test,) = content["hal_tests"]
    expected = mcnemar([False, False, True], [True, False, True])
    assert (expected.gained, expected.lost) == (1, 0)
    assert test["mcnemar"] == {**expected.as_dict(), "p_holm": expected.p_value}
    assert test["difference"] == difference["numbers"]["hal"]
    assert test["words"] == pytest.approx(difference["numbers"]["words"]["value"])
    rows = {row[0]: row[1:] for row in table_rows(text)}
    assert rows["eah - baseline"][1:] == ["1", "1", "0", "+1.3"]
    assert rows["arm - reference"][-1] == "mean words"


def test_several_comparisons_are_adjusted(tmp_path: Path) -> None:
    found = report(tmp_path, baseline=BASE, eah=OTHER, vcd=BASE)

    tests = {(t["arm"], t["reference"]): t for t in found.as_dict()["hal_tests"]}
    assert tests.keys() == {("eah", "baseline"), ("vcd", "baseline")}
    assert tests["vcd", "baseline"]["mcnemar"]["gained"] == 0
    assert "Holm-adjusted for 2 comparisons" in " ".join(found.text().split())


def test_a_caption_without_any_mention_is_no_number_of_chair(tmp_path: Path) -> None:
    """0/0 is n/a here, and 0 in the reference; a note says how many such captions there are."""
    found = report(tmp_path, baseline=["", "Nothing.", "An owl."])

    numbers = found.as_dict()["results"][0]["numbers"]
    assert numbers["chair"]["value"] is None
    assert numbers["hal"]["value"] == 0.0
    assert "| baseline |          n/a |" in found.text()
    (notes,) = found.task.notes(found.arms)
    assert "3 of 3 captions of baseline have no word that AMBER" in notes
    assert "answered: 3 of 1,004 captions; nouns by nltk " in notes
    assert max(map(len, notes.splitlines())) <= 100


def test_counts_add_up_over_pictures(tmp_path: Path) -> None:
    kind = task(tmp_path)
    answers = [Answer(item, text) for item, text in zip(kind.items(), OTHER, strict=True)]

    each = np.sum([kind.counts([answer]) for answer in answers], axis=0)

    assert kind.counts(answers) == each.tolist()
    assert kind.counts([]) == [0] * len(each)


def test_captions_that_were_asked_with_other_files_are_refused(tmp_path: Path) -> None:
    answers = [Answer(item, "A dog.") for item in task(tmp_path / "one").items()]
    write_amber(tmp_path / "two", relation={"dog": []}, annotations=[
        {"id": at, "type": "generative", "truth": ["dog"], "hallu": []} for at in (1, 2, 3)
    ])  # fmt: skip
    other = AmberGenerative(GenerativeSettings(questions=tmp_path / "two"))

    with pytest.raises(
        EvaluationError, match=r"caption 1 of AMBER_1\.jpg was generated with other"
    ):
        other.counts(answers)


@pytest.mark.parametrize("name", ["answer_key", "id_key", "partial"])
def test_what_says_how_a_file_is_read_needs_one(name: str) -> None:
    with pytest.raises(
        EvaluationError, match=f"--{name.replace('_', '-')} is only used with --answers"
    ):
        GenerativeSettings(**{name: "x"})


def test_nltk_is_looked_for_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nltk.data.path", [])

    with pytest.raises(EvaluationError, match=r"NLTK's data is missing \(punkt_tab, .*folder\)$"):
        task(tmp_path).items()


def test_a_model_describes_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    amber, pictures = write_scenes_of_amber(tmp_path, 3)
    flags = ["--task", "amber-generative", "--questions", str(amber)]

    assert main([*flags, "--model", "tiny-llava", "--device", "cpu", "--data-path", str(pictures),
                 "--output-dir", str(tmp_path / "runs"), "--layers", "1"]) == 0  # fmt: skip

    run = only_run(tmp_path / "runs", "amber-generative")
    settings = json.loads((run / "run.json").read_text())["settings"]
    assert settings["decoding"]["max_new_tokens"] == 512
    out = capsys.readouterr().out
    assert "vectors exact, 1 beam(s), at most 512 tokens" in out
    metrics = json.loads((run / "report/metrics.json").read_text())
    lines = [json.loads(line) for line in (run / "report/amber_eah.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [1, 2, 3]
    assert lines[0]["mentions"]
    counted = sum(len(line["hallucinated"]) for line in lines)
    assert counted == metrics["counts"]["eah"]["hallucinated"]
    # Captions as AMBER's script reads them are read here, too, and so is the run itself.
    saved = str(run / "report/responses_eah.json")
    for answers in (saved, str(run)):
        output = ["--output-dir", str(tmp_path / "saved"), "--json", str(tmp_path / "found.json")]
        assert main([*flags, "--answers", answers, *output]) == 0
        found = json.loads((tmp_path / "found.json").read_text())
        arm = "answers" if answers == saved else "eah"
        assert found["reference"][arm] == metrics["reference"]["eah"]
    assert main([*flags, "--answers", str(run), "--partial"]) == 2
    assert "is a run folder, which is scored whole" in capsys.readouterr().err
    assert runs.main(["rescore", str(run), "--questions", str(amber)]) == 0
    again = capsys.readouterr().out
    assert again.strip() in out
    assert runs.main(["rescore", str(run), "--parser", "pope"]) == 2
    assert runs.main(["export", str(run), "--questions", str(amber), "--format", "llava"]) == 0
