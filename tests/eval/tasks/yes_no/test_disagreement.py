"""Where parsers disagree: shares, examples and when it is worth a note."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval import runs
from eval.files.answers import Answer, Item
from eval.tasks.yes_no.disagreement import disagreement_notes, disagreements
from tests.eval.small_runs import write_run

ITEM = Item(1, "a.jpg", "Is there a dog?", "yes")


def notes(*texts: str) -> list[str]:
    return disagreement_notes(
        disagreements({"eah": [Answer(ITEM, t) for t in texts]}, "pope"), "pope"
    )


def test_a_note_gives_share_example_readings_and_what_to_do() -> None:
    (note,) = notes("Yes", "No!", "Perhaps.", "No!")

    assert " ".join(note.split()) == (
        "eah: the parsers disagree on 75.0 % of 4 answers: 'No!' is yes for opera and pope, no for "
        "strict and substring the numbers above use parser pope; --parser NAME selects "
        "another, and the JSON file has the numbers of all: report several, or ask for one-word "
        "answers (--protocol official, or chat-short with --model hf)"
    )
    assert max(map(len, note.splitlines())) <= 100


def test_a_long_example_is_cut_within_its_quotes() -> None:
    (note,) = notes(*["No! It is a cat in this picture! " * 9] * 2)

    assert "'No! It is a cat in this picture! No! It ...' is" in " ".join(note.split())
    assert max(map(len, note.splitlines())) <= 100


@pytest.mark.parametrize(("plain", "noted"), [(99, False), (98, True)])
def test_one_percent_is_not_worth_a_note_and_more_is(plain: int, noted: bool) -> None:
    assert bool(notes(*["Yes"] * plain, "No!")) is noted


def test_empty_answers_are_counted_and_blanks_are_empty() -> None:
    (note,) = notes("", " \n", "Yes")

    assert note.startswith("eah: 2 of 3 answers are empty\neah: the parsers disagree on 66.7 %")


def test_mmes_own_parser_is_compared_where_it_is_in_use() -> None:
    """It reads four characters only, so that every sentence would differ."""
    answers = {"eah": [Answer(ITEM, "There is no dog")]}

    assert disagreements(answers, "opera")["eah"].share == 0
    assert disagreements(answers, "first-4")["eah"].read_as["first-4"] is None


def test_runs_that_a_model_answered_have_the_note_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_run(tmp_path / "x-1", {"baseline": lambda _: "No!"})
    second = write_run(tmp_path / "x-2", {"baseline": lambda _: "Yes"})
    for action in (["rescore", str(first)], ["show", str(first)],
                   ["compare", str(first), str(second)]):  # fmt: skip
        assert runs.main(action) == 0
        assert "the parsers disagree on 100.0 % of 6 answers: 'No!' is" in capsys.readouterr().out
