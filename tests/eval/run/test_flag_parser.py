"""Help that fits a terminal and begins with an example, and flags in either spelling."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from eval import chair_eval, evaluate, pope_eval, runs
from eval.run.flag_parser import GROUPS, FlagParser
from models.methods import read_methods
from models.settings import available

ASKS = {
    "pope_eval": (pope_eval.main, []),
    "chair_eval": (chair_eval.main, []),
    "evaluate": (evaluate.main, ["--task", "mme"]),
}


def help_of(main: Callable[[list[str]], int], *arguments: str) -> str:
    """Return the help of a command, which ends it."""
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--help"])
    assert stop.value.code == 0
    return ""


@pytest.fixture
def asked(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the help of a command that asks a model."""
    main, arguments = ASKS[request.param]
    help_of(main, *arguments)
    return capsys.readouterr().out


def headings(text: str) -> list[str]:
    """Return the titles of the groups of flags."""
    return re.findall(r"^([a-z][a-z ]*):$", text, flags=re.MULTILINE)


def check_shape(text: str, example: str) -> None:
    """Check what the help of every command has in common."""
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("usage: ")
    assert lines[1:3] == ["", "example:"]
    assert lines[3].startswith(f"    python eval/{example}")
    # One spelling each: a flag stands at the start of a line, and no line starts with two.
    flags = re.findall(r"^  (--?\w[\w-]*)", text, flags=re.MULTILINE)
    assert len({flag.lower().replace("_", "-") for flag in flags}) == len(flags)
    assert not re.search(r"^  -\S+( [A-Z][\w.=,]*( \[.*?\])?)?, --?\w", text, flags=re.MULTILINE)


@pytest.mark.parametrize("asked", ASKS, indirect=True)
def test_help_groups_its_flags_and_begins_with_an_example(
    asked: str, request: pytest.FixtureRequest
) -> None:
    check_shape(asked, request.node.callspec.params["asked"])

    found = headings(asked)
    assert found[0] == "example"
    assert [name for name in found if name != "example"] == [g for g in GROUPS if g in found]
    assert set(GROUPS[1:]) <= set(found)


@pytest.mark.parametrize("asked", ASKS, indirect=True)
def test_help_lists_models_and_methods(asked: str) -> None:
    words = set(re.findall(r"[\w.-]+", asked))

    assert set(available()) <= words
    assert {"baseline", "eah", *read_methods()} <= words
    assert "eah@layers=2,threshold=0.001" in asked
    assert "layers=0,1,2 threshold=0.001,0.002" in asked
    for flag in ("--LAYER_NUM", "--THRES", "--scale_factor", "--dry-run", "--json", "--wide"):
        assert re.search(rf"^  {flag}\b", asked, flags=re.MULTILINE)
    for other in ("--layers", "--sink-threshold", "--scale-factor", "--num-beams"):
        assert not re.search(rf"^  .*{other}\b", asked, flags=re.MULTILINE)


@pytest.mark.parametrize("action", runs.ACTIONS)
def test_help_of_each_action_on_runs_has_an_example(
    action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    help_of(runs.main, action)

    check_shape(capsys.readouterr().out, f"runs.py {action}")


def test_help_of_runs_begins_with_examples_and_lists_actions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert runs.main(["--help"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[2] == "    python eval/runs.py list"
    assert {line.split()[0] for line in lines if line} >= set(runs.ACTIONS)


def test_help_of_chair_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    help_of(importlib.import_module("eval.chair").main)

    check_shape(capsys.readouterr().out, "chair.py")


def test_evaluate_without_a_task_names_all_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    help_of(evaluate.main)
    shown = capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        evaluate.main(["--model", "tiny-llava"])

    assert stop.value.code == 2
    assert "--task" in capsys.readouterr().err
    assert "the benchmark: pope, repope, pope-aokvqa, pope-gqa, chair," in shown
    assert evaluate.main(["--task=mmee"]) == 2
    assert "task 'mmee' is unknown: did you mean 'mme'" in capsys.readouterr().err


# The parser itself -----------------------------------------------------------------------------


@pytest.fixture
def parser() -> FlagParser:
    flags = FlagParser("Do it.\n\n    python do.py --some-thing 1\n\nMore.")
    flags.flag("--some-thing", type=int, help="a number")
    flags.flag("--BIG_ONE", "--alias-of-it", dest="big", nargs="+", group="arms")
    flags.flag("--path", type=Path, group="data")
    flags.flag("--yes", action="store_true")
    return flags


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([], {}),
        (["--some-thing", "1"], {"some_thing": 1}),
        (["--some_thing=1"], {"some_thing": 1}),
        (["--BIG_ONE", "a", "b"], {"big": ["a", "b"]}),
        (["--BIG-ONE", "a"], {"big": ["a"]}),
        (["--alias-of-it", "a"], {"big": ["a"]}),
        (["--alias_of_it", "a"], {"big": ["a"]}),
        (["--path", "x", "--yes"], {"path": Path("x"), "yes": True}),
    ],
)
def test_dashes_and_underscores_are_the_same(
    parser: FlagParser, arguments: list[str], given: dict[str, object]
) -> None:
    assert parser.parse(arguments) == given


def test_help_shows_each_flag_once_with_what_it_takes(parser: FlagParser) -> None:
    lines = parser.format_help().splitlines()

    assert lines[2:6] == ["example:", "    python do.py --some-thing 1", "", "Do it."]
    assert "More." not in lines
    assert ["--some-thing", "N", "a", "number"] in [line.split() for line in lines]
    assert "  --BIG_ONE NAME [NAME ...]" in lines
    assert "  --path PATH" in lines
    assert "  --yes" in lines
    assert [line[:-1] for line in lines if re.fullmatch("[a-z ]+:", line)] == [
        "example", "this command", "data", "arms", "output",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--some-thin", "1"], "--some-thin is unknown: did you mean --some-thing? --help lists"),
        (["--some_thinks=secret"], "--some_thinks is unknown: did you mean --some_thing? --help"),
        (["--qqq"], "--qqq is unknown: --help lists the flags"),
        (["--big", "a"], "--big is unknown: "),  # a prefix is no flag, nor is another case
        (["--some-thing", "one"], "argument --some-thing"),
    ],
)
def test_an_unknown_flag_is_one_sentence(
    parser: FlagParser,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        parser.parse(arguments)

    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert ": error: " in line
    assert message in line
    assert "secret" not in line


def test_a_prefix_of_a_papers_flag_is_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pope_eval.main(["--thres", "15"])  # neither --THRES nor --threshold

    assert "--thres is unknown" in capsys.readouterr().err
