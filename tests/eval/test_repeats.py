"""`--repeats` as a user runs it, on the embedded model: one model, runs of their own, one table."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

import models
from eval import chair_eval, gpt4v_eval, pope_eval, runs
from eval.run.recorded import read_run, runs_below
from eval.tasks.pope.task import Pope, PopeSettings
from tests.eval.results import result_in
from tests.eval.small_runs import count_calls, pope_flags, state_of
from tests.eval.tables import table_rows


@pytest.fixture
def pope(tmp_path: Path) -> list[str]:
    """Return flags of questions that are built already, since a seed builds others."""
    flags = pope_flags(tmp_path)
    at = flags.index("--build-from")
    built, folder = Path(flags[at + 1]), Path(flags[at + 3])
    Pope(PopeSettings(build_from=built, pope_path=folder)).items()
    return [*flags[:at], *flags[at + 2 :], "--output-dir", str(tmp_path / "runs")]


@pytest.fixture
def captions(pope: list[str], tmp_path: Path) -> list[str]:
    """Return flags that have three of four pictures described and scored."""
    return [
        *pope[:6], "--output-dir", str(tmp_path / "runs"), "--num-images", "3", "--score",
        "--analyzer", "lexicon", "--max-new-tokens", "16",
    ]  # fmt: skip


def report(folder: Path) -> dict[str, Any]:
    """Return the numbers of the only report over repeats."""
    (path,) = folder.rglob("*-repeats*/report/metrics.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def count_loads(patch: pytest.MonkeyPatch) -> list[str]:
    loaded: list[str] = []
    load = models.load

    def counted(name: str, **arguments: Any) -> models.VLM:
        loaded.append(name)
        return load(name, **arguments)

    patch.setattr(models, "load", counted)
    return loaded


def test_each_repeat_is_the_run_of_its_seed_and_the_model_is_loaded_once(
    pope: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded = count_loads(monkeypatch)
    out = tmp_path / "out.json"

    assert pope_eval.main([*pope, "--sample", "--repeats", "3", "--json", str(out)]) == 0

    assert loaded == ["tiny-llava"]
    found = {run.settings["seed"]: run for run in runs_below(tmp_path / "runs")}
    assert sorted(found) == [0, 1, 2]
    content = report(tmp_path)
    assert result_in(out) == content
    assert content["seeds"] == [0, 1, 2]
    assert content["runs"] == [found[seed].path.name for seed in range(3)]
    single = [
        json.loads((found[seed].path / "report/metrics.json").read_text()) for seed in range(3)
    ]
    for kind in ("results", "differences"):
        for at, one in enumerate(content[kind]):
            for name, of in one["numbers"].items():
                values = [numbers[kind][at]["numbers"][name]["value"] for numbers in single]
                assert of["repeats"] == pytest.approx(values)
                assert of["mean"] == pytest.approx(mean(values))
                assert of["sd"] == pytest.approx(stdev(values))
    printed = capsys.readouterr().out
    assert "mean, sd: over 3 repeats (seeds 0 to 2); sd is the sample" in printed
    # Of the questions, not of the answers, which are three times as many.
    questions = len(found[0].answers()["baseline"])
    assert f"positive class: yes\nanswered: {questions} " in printed.partition("mean, sd:")[2]
    assert all(f"run folder: {run.path}\n" in printed for run in found.values())
    before = state_of(tmp_path / "runs")

    assert pope_eval.main([*pope, "--sample", "--seed", "1"]) == 0

    after = state_of(tmp_path / "runs")
    assert {name: after[name] for name in before if "answers" in name} == {
        name: of for name, of in before.items() if "answers" in name
    }
    assert after.keys() == before.keys()


def test_what_is_answered_is_not_asked_again(
    pope: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pope_eval.main([*pope, "--sample", "--seed", "0"]) == 0
    asked = count_calls(monkeypatch)

    assert pope_eval.main([*pope, "--sample", "--repeats", "2"]) == 0
    first = asked.prompts
    assert pope_eval.main([*pope, "--sample", "--repeats", "2"]) == 0

    (total,) = {run.total for run in runs_below(tmp_path / "runs")}
    assert first == asked.prompts == 2 * total  # both arms of the second seed


def test_noise_of_each_seed_is_an_arm_and_greedy_arms_are_asked_once(
    pope: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = count_calls(monkeypatch)
    flags = [*pope, "--method", "baseline", "vcd", "vcd+eah", "--repeats", "2",
             "--reference", "vcd"]  # fmt: skip

    assert pope_eval.main(flags) == 0

    (run,) = runs_below(tmp_path / "runs")
    assert set(run.arms) == {"baseline", "vcd@seed=0", "vcd@seed=1", "vcd+eah@seed=0",
                             "vcd+eah@seed=1"}  # fmt: skip
    assert asked.prompts <= 5 * run.total
    content = report(tmp_path)
    assert list(dict.fromkeys(one["arm"] for one in content["results"])) == [
        "baseline", "vcd", "vcd+eah",
    ]  # fmt: skip
    assert {(one["arm"], one["reference"]) for one in content["differences"]} == {
        ("baseline", "vcd"), ("vcd+eah", "vcd"),
    }  # fmt: skip
    baseline = content["results"][0]["numbers"]["accuracy"]
    assert baseline["sd"] == 0
    assert capsys.readouterr().out.count("run folder: ") == 1


def test_captions_are_of_random_splits_and_scored(
    captions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chair_eval.main([*captions, "--repeats", "3"]) == 0

    printed = capsys.readouterr().out
    found = list(runs_below(tmp_path / "runs"))
    splits = {frozenset(answer.item.id for answer in run.arms["eah"].answers) for run in found}
    assert len(found) == 3
    assert len(splits) > 1
    content = report(tmp_path)
    assert content["bootstrap"]["pictures"] == len(frozenset().union(*splits))
    numbers = content["results"][0]["numbers"]
    assert list(numbers) == ["CHAIRs", "CHAIRi", "Recall", "Len"]
    by_name = {run.path.name: run for run in found}
    for at, name in enumerate(content["runs"]):
        scored = json.loads((by_name[name].path / "report/metrics.json").read_text())["chair"]
        assert scored["other_arms"][0]["method"] == content["results"][0]["arm"] == "baseline"
        overall = scored["other_arms"][0]["overall_metrics"]
        assert {name: of["repeats"][at] for name, of in numbers.items()} == pytest.approx(overall)
    rows = table_rows(printed)
    assert ["arm", "metric", "mean (95 %)", "sd"] in rows
    assert [row[:2] for row in rows if row[0] == "eah - baseline"][:4] == [
        ["eah - baseline", name] for name in ["CHAIRs", "CHAIRi", "Recall", "Len, with punctuation"]
    ]
    assert "\nCHAIRs, CHAIRi, Recall: in percent\n" in printed


def test_other_commands_do_not_choke_on_the_report(
    captions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chair_eval.main([*captions, "--repeats", "2"]) == 0
    capsys.readouterr()

    assert runs.main(["list", str(tmp_path / "runs")]) == 0

    printed = capsys.readouterr()
    assert printed.err == ""
    assert "-repeats2-" not in printed.out
    assert len(table_rows(printed.out)) == 1 + 2 * 2


def test_a_dry_run_says_what_each_repeat_would_ask(
    pope: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pope_eval.main([*pope, "--sample", "--repeats", "2"]) == 0
    before = state_of(tmp_path / "runs")
    capsys.readouterr()

    assert pope_eval.main([*pope, "--sample", "--repeats", "3", "--dry-run"]) == 0

    printed = capsys.readouterr().out
    assert printed.count("run folder: ") == 3
    assert state_of(tmp_path / "runs") == before


def test_more_repeats_are_another_report(pope: list[str], tmp_path: Path) -> None:
    for count in ("2", "3"):
        assert pope_eval.main([*pope, "--sample", "--repeats", count]) == 0

    reports = sorted((tmp_path / "runs").rglob("*-repeats*/report/table.md"))
    names = [path.parents[1].name for path in reports]
    assert [name.rpartition("-")[0] for name in names] == [
        "opera-random-sample-repeats2", "opera-random-sample-repeats3",
    ]  # fmt: skip
    assert len(list(runs_below(tmp_path / "runs"))) == 3


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--repeats", "2"], "--repeats 2 would have the same answers 2 times"),
        (["--repeats", "2", "--sample", "--seed", "42"], "so --seed 42 has no effect"),
        (["--repeats", "0"], "repeats=0, but at least 1 is needed"),
        (["--repeats", "2", "--sample", "--options", "seed=3"], "so --seed 3 has no effect"),
    ],
)
def test_repeats_that_make_no_sense_are_one_sentence(
    pope: list[str], extra: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pope_eval.main([*pope, *extra]) == 2

    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.parametrize("listed", [True, False], ids=["listed pictures", "all pictures"])
def test_greedy_captions_of_the_same_pictures_are_refused(
    captions: list[str], tmp_path: Path, listed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ids.txt").write_text("1\n2\n")
    at = captions.index("--num-images")
    chosen = ["--image-ids", str(tmp_path / "ids.txt")] if listed else ["--num-images", "4"]
    flags = [*captions[:at], *chosen, *captions[at + 2 :], "--repeats", "2"]

    assert chair_eval.main(flags) == 2

    assert "would have the same answers 2 times" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_saved_answers_have_no_repeats(
    pope: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pope_eval.main(pope) == 0
    (run,) = runs_below(tmp_path / "runs")
    questions = ["--pope-path", pope[pope.index("--pope-path") + 1]]

    assert pope_eval.main([*questions, "--answers", str(run.path), "--repeats", "2"]) == 2

    assert "--repeats affects how a model is asked, but --answers" in capsys.readouterr().err
    assert read_run(run.path).finished().keys() == {"baseline", "eah"}


def test_a_judge_has_no_repeats(
    captions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*captions[:8], "--options", "repeats=2"]

    assert gpt4v_eval.main(flags) == 2

    assert "repeats=2, but a judge compares two texts per picture once" in capsys.readouterr().err
