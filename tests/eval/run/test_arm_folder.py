"""An arm's answers: recorded by any number of processes, put in order once, set aside whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.run.arm_folder import ArmFolder, arm_names
from eval.run.costs import BatchCost
from tests.eval.small_runs import state_of


def answer(number: int, text: str = "yes") -> Answer:
    return Answer(Item(number, f"{number}.jpg", "Is it?", "yes", "random"), text)


def arm_folder(run: Path, name: str = "eah", process: int | None = None) -> ArmFolder:
    folder = ArmFolder(run, name, process)
    folder.write_info({"name": name, "started": "2026"})
    return folder


def test_answers_of_all_processes_are_read_by_question(tmp_path: Path) -> None:
    first, second = (arm_folder(tmp_path, process=n) for n in range(2))
    first.append([answer(3), answer(1)])
    second.append([answer(2)])

    found = ArmFolder(tmp_path, "eah").answers()

    assert found == {("random", n): answer(n) for n in (1, 2, 3)}


def test_an_answer_that_two_processes_have_counts_once(tmp_path: Path) -> None:
    first, second = (arm_folder(tmp_path, process=n) for n in range(2))
    second.append([answer(1, "second"), answer(2, "second")])
    first.append([answer(1, "first")])

    assert [one.text for _, one in sorted(first.answers().items())] == ["first", "second"]


def test_an_answer_that_one_process_has_twice_is_an_error(tmp_path: Path) -> None:
    folder = arm_folder(tmp_path)
    folder.append([answer(1), answer(2), answer(2)])

    with pytest.raises(EvaluationError, match=r"answers question \('random', 2\) twice; delete"):
        folder.answers()


def test_a_line_that_is_no_answer_names_the_file(tmp_path: Path) -> None:
    folder = arm_folder(tmp_path)
    (folder.path / "answers.jsonl").write_text('{"id": 1}\n')

    with pytest.raises(EvaluationError, match=r"eah/answers\.jsonl, .* is not a recorded answer"):
        folder.answers()


def test_finished_answers_are_one_file_in_order(tmp_path: Path) -> None:
    first, second = (arm_folder(tmp_path, process=n) for n in range(2))
    first.append([answer(3), answer(1)])
    second.append([answer(2)])
    spent = [BatchCost("random/1+2", "cpu", 5, 5, 0.5), BatchCost("random/2+1", "cpu", 5, 5, 0.7)]
    second.append_cost(spent[1])
    first.append_cost(spent[0])
    assert first.in_parts

    second.finish([answer(n) for n in (1, 2, 3)])

    done = ArmFolder(tmp_path, "eah")
    assert {path.name for path in done.path.iterdir()} == {
        "arm.json", "answers.jsonl", "costs.jsonl",
    }  # fmt: skip
    assert list(done.answers().values()) == [answer(n) for n in (1, 2, 3)]
    assert done.costs() == spent
    assert not first.in_parts


@pytest.mark.parametrize(
    ("process", "in_parts"), [(None, False), (0, True), (3, True)], ids=["alone", "first", "other"]
)
def test_parts_are_what_processes_of_a_shared_run_write(
    tmp_path: Path, process: int | None, in_parts: bool
) -> None:
    folder = arm_folder(tmp_path, process=process)
    assert not folder.in_parts

    folder.append([answer(1)])

    assert folder.in_parts == in_parts


def test_an_arm_that_was_never_asked_is_empty(tmp_path: Path) -> None:
    folder = ArmFolder(tmp_path, "eah")

    assert (folder.info(), folder.answers(), folder.costs()) == (None, {}, [])
    assert folder.set_aside() is None
    assert not list(tmp_path.iterdir())


def test_nothing_is_lost_when_answers_are_set_aside(tmp_path: Path) -> None:
    kept = []
    for text in ("first", "second"):
        folder = arm_folder(tmp_path)
        folder.append([answer(1, text)])
        kept.append(state_of(folder.path))

        target = folder.set_aside()

        assert target == tmp_path / "set_aside" / f"eah-{len(kept)}"
        assert not folder.path.exists()
    assert [state_of(path) for path in sorted((tmp_path / "set_aside").iterdir())] == kept
    assert arm_names(tmp_path) == []


def test_names_that_file_systems_refuse_are_shortened(tmp_path: Path) -> None:
    long = "vcd+eah@" + ",".join(f"setting{n}=0.{n}" for n in range(50))
    names = ["eah@image_span=3:9", long, long + "1"]
    folders = [arm_folder(tmp_path, name) for name in names]

    assert len({folder.path for folder in folders}) == 3
    assert folders[0].path.name == "eah@image_span=3-9"
    assert all(len(folder.path.name) <= 130 for folder in folders)
    assert set(arm_names(tmp_path)) == set(names), "arm.json has the whole name"


def test_arms_come_in_the_order_in_which_they_were_begun(tmp_path: Path) -> None:
    for name, started in (("vcd", "1"), ("pai", "3"), ("eah", "2"), ("baseline", "4"), ("b", "2")):
        ArmFolder(tmp_path, name).write_info({"name": name, "started": started})

    assert arm_names(tmp_path) == ["baseline", "vcd", "b", "eah", "pai"]
