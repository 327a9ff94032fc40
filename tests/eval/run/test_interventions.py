"""Methods that change attention or layers as arms: one run, one table, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval import pope_eval
from eval.errors import EvaluationError
from eval.run import runner
from eval.run.arm_settings import ArmDefaults
from eval.run.arms import Size, arms_of, notes_on_methods, resolve
from eval.run.recorded import RecordedRun, read_run
from eval.run.settings import RunSettings
from models import settings
from models.decoding.adhh import Adhh
from models.decoding.base import DecodingMethod
from models.decoding.hgai import Hgai
from models.decoding.var import Var
from models.methods import read_methods
from models.settings import available, model_settings
from scripts.scenes.make import write_scenes
from tests.eval.small_runs import only_run

ARMS = ["baseline", "eah", "hgai", "vaf", "deco", "hgai+eah", "vaf+eah", "deco+eah"]
MORE = [
    "spin",
    "spin+eah",
    "adhh@heads=2h1+3h0,threshold=0.02",
    "var@sink_dims=46+65,tau=2.5,summ=0",
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=4, seed=2014)
    return folder


def flags(scenes: Path, folder: Path, *arguments: str) -> list[str]:
    return [
        "--model", "tiny-llava", "--gpu-id", "-1", "--data-path", str(scenes / "val2014"),
        "--build-from", str(scenes / "annotations/instances_val2014.json"),
        "--pope-path", str(scenes / "pope"), "--pope-type", "random",
        "--output-dir", str(folder / "runs"), *arguments,
    ]  # fmt: skip


def the_error(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the only error that was printed."""
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    return error


@pytest.fixture(scope="module")
def together(
    scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RecordedRun, dict[str, Any]]:
    """Return a run of all arms, and what it wrote with `--json`."""
    folder = tmp_path_factory.mktemp("together")
    given = ["--method", *ARMS, *MORE, "--limit", "12", "--batch-size", "6"]
    assert pope_eval.main(flags(scenes, folder, *given, "--json", str(folder / "all.json"))) == 0
    return read_run(only_run(folder / "runs")), json.loads((folder / "all.json").read_text())


def test_one_table_has_all_arms_with_adjusted_p_values(
    together: tuple[RecordedRun, dict[str, Any]],
) -> None:
    run, found = together

    assert set(run.finished()) == {*ARMS, *MORE}
    assert [one["arm"] for one in found["results"]] == [*ARMS, *MORE]
    pairs = {(one["arm"], one["reference"]) for one in found["differences"]}
    assert pairs >= {(arm, "baseline") for arm in (*ARMS[1:], *MORE)}
    assert pairs >= {(f"{arm}+eah", arm) for arm in ("hgai", "vaf", "deco", "spin")}
    assert all(cost["forwards_per_token"] == 1 for cost in found["costs"].values())
    # Six questions about a picture share its prefix, whatever the method does behind it.
    reused = {arm: cost["reused"] for arm, cost in found["costs"].items() if "eah" not in arm}
    assert set(reused.values()) == {reused["baseline"]}
    assert reused["baseline"] > 0


def test_every_arm_says_something_of_its_own(
    together: tuple[RecordedRun, dict[str, Any]],
) -> None:
    arms = together[0].arms
    p_yes = {name: tuple(answer.p_yes for answer in arm.answers) for name, arm in arms.items()}

    # DeCo rules most words out, so that few of its probabilities are between 0 and 1.
    others = [one for name, one in p_yes.items() if name != "deco+eah"]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize("arm", ["hgai", "deco+eah", MORE[2], MORE[3]])
def test_answers_are_the_same_one_by_one_and_without_prefixes(
    together: tuple[RecordedRun, dict[str, Any]], scenes: Path, tmp_path: Path, arm: str
) -> None:
    given = ["--method", arm, "--limit", "12", "--batch-size", "1", "--no-prefix-reuse"]

    assert pope_eval.main(flags(scenes, tmp_path, *given)) == 0

    run = read_run(only_run(tmp_path / "runs"))
    alone, batched = run.arms[arm].answers, together[0].arms[arm].answers
    assert [a.text for a in alone] == [b.text for b in batched]
    assert [a.p_yes for a in alone] == pytest.approx([b.p_yes for b in batched], abs=1e-4)


def test_beams_run_under_methods_that_leave_the_choice_alone(scenes: Path, tmp_path: Path) -> None:
    given = ["--method", "hgai+eah", "deco", "--limit", "6", "--batch-size", "3"]

    assert pope_eval.main(flags(scenes, tmp_path, *given, "--beam", "3")) == 0

    run = read_run(only_run(tmp_path / "runs"))
    heads = [answer.findings[0].head for answer in run.arms["hgai+eah"].answers]
    assert pope_eval.main(flags(scenes, tmp_path / "greedy", *given)) == 0
    greedy = read_run(only_run(tmp_path / "greedy/runs")).arms["hgai+eah"].answers
    assert heads == [answer.findings[0].head for answer in greedy]
    assert len(set(heads)) > 1


# Settings that a model decides --------------------------------------------------------------------


def arm(model: str, name: str) -> DecodingMethod | None:
    (found,) = arms_of(RunSettings(model=model, method=(name,)))
    return found.decoding()


def test_a_models_config_has_the_settings_that_the_model_decides() -> None:
    seven, thirteen = arm("llava-1.5", "adhh"), arm("llava-1.5-13b", "adhh")

    assert isinstance(seven, Adhh)
    assert isinstance(thirteen, Adhh)
    assert len(seven.heads.split("+")) == 20
    assert len(thirteen.heads.split("+")) == 35
    assert arm("llava-1.5", "var") == Var((1415, 2533))
    assert arm("llava-1.5-13b", "var") == Var((2100, 4743))
    assert arm("tiny-llava", "hgai") == Hgai((2, 3))
    assert arm("llava-1.5", "hgai") == Hgai(tuple(range(5, 19)))
    assert arm("shikra", "var") == Var(())


@pytest.mark.parametrize("model", available())
def test_every_setting_in_a_models_config_is_one_of_its_method(model: str) -> None:
    for name in model_settings(model).methods:
        assert name in read_methods()
        assert arm(model, name) is not None


def test_an_arms_name_holds_what_differs_from_the_models_config() -> None:
    defaults = ArmDefaults(published={"hgai": {"layers": [2, 3]}})

    assert resolve("hgai@layers=2-3", defaults).name == "hgai"
    assert resolve("hgai@layers=5-18", defaults).name == "hgai@layers=5-18"
    assert resolve("hgai+eah@hgai.layers=3", defaults).name == "hgai+eah@hgai.layers=3"
    assert resolve("hgai@causal=False", defaults).name == "hgai@causal=false"


def test_a_model_that_settings_were_not_published_for_is_noted() -> None:
    seven, thirteen = Size(32, 4096), Size(40, 5120)

    def notes(model: str, size: Size = seven) -> list[str]:
        arms = arms_of(RunSettings(model=model, method=("hgai", "hgai+eah", "deco", "pai")))
        return list(notes_on_methods(arms, model, size))

    assert notes("llava-1.5") == notes("tiny-llava") == []
    assert (
        notes("shikra")
        == notes("llava-1.5", thirteen)
        == [
            "note: the settings of hgai were published for llava-1.5; they may not suit another "
            "model"
        ]
    )


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "var"], "method var: VAR needs the dimensions in which this lang"),
        (["--method", "adhh"], "method adhh: AD-HH needs the hallucination heads of this"),
        (
            ["--method", "adhh@heads=2h8"],
            "method adhh@heads=2h8: AD-HH: head 2h8 does not exist, since layer 2 has 8 heads",
        ),
        (["--method", "adhh@heads=2-8"], "adhh.heads is [2, 3, 4, 5, 6, 7, 8], but it must be of"),
        (["--method", "adhh@heads=x"], "adhh: heads='x' with 'x', but each head is written once"),
        (["--method", "hgai@layers=5-18"], "HGAI changes layers 5..18, but LlavaForConditionalG"),
        (["--method", "deco@layers=4"], "method deco@layers=4: layers=[4], but early layers are"),
        (["--method", "deco@layers=published"], "are published for models of 32 layers, but this"),
        (["--method", "hgai+eah", "--LAYER_NUM", "3"], "HGAI and EAH both change layer 3; one"),
        (
            ["--method", "var+eah@sink_dims=3,layers=2"],
            "VAR and EAH both change layer 2; one layer can't have both: choose other layers for",
        ),
        (
            ["--method", "spin@layers=some"],
            "spin: layers='some', but it must be 'all' or distinct numbers",
        ),
        (
            ["--method", "var@sink_dims=3,released=true"],
            "batch_size=8, but with the settings of var@sink_dims=3,released=true the prompts of a",
        ),
        (["--method", "adhh@heads=1h1,batch_sum=true"], "pass --batch-size 1"),
    ],
)
def test_what_can_not_be_is_one_sentence_before_any_answer(
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    given = flags(scenes, tmp_path, "--limit", "2", "--method", "baseline", *arguments[1:])

    assert pope_eval.main(given) == 2

    assert message in the_error(capsys)
    assert not list((tmp_path / "runs").rglob("answers.jsonl"))


def test_an_arm_that_depends_on_its_first_question_is_not_gone_on_with(
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "var@sink_dims=3+5,tau=2,released=true"
    given = flags(scenes, tmp_path, "--limit", "4", "--batch-size", "1", "--method", name)
    asked = runner.Asker.answers
    with monkeypatch.context() as patch:

        def stopped(self: Any, arm: Any, index: int, *rest: Any) -> Any:
            if index == 2:
                raise EvaluationError("stopped here")
            return asked(self, arm, index, *rest)

        patch.setattr(runner.Asker, "answers", stopped)
        assert pope_eval.main(given) == 2
    capsys.readouterr()

    assert pope_eval.main(given) == 2

    assert "cannot resume them; pass --fresh" in capsys.readouterr().err
    assert pope_eval.main([*given, "--fresh"]) == 0


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("", "methods is None, but it must be settings by method"),
        ("[hgai]", "methods is ['hgai'], but it must be settings by method"),
        ("{hgia: {layers: 2}}", "'hgia' is unknown: did you mean 'hgai'"),
        ("{hgai: null}", "hgai is None, but it must be settings"),
        ("{hgai: {layer: 2}}", "hgai has no setting 'layer': did you mean 'layers'"),
        ("{hgai: {class: x.Y}}", "hgai has no setting 'class'"),
        ("{hgai: {layers: 2-99999999}}", "no model has so many layers: 2-99999999"),
        ("{hgai: {layers: 2}}\nmethods_for: {layers: 4}", "it must be {layers: N, width: N}"),
    ],
)
def test_what_a_models_config_can_not_say_is_one_sentence(
    methods: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for path in settings.CONFIGS.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    own = "wrapper: models.llava.Llava\ncheckpoint: models/tiny-llava\nprotocol: opera\n"
    (tmp_path / "mine.yaml").write_text(f"{own}methods: {methods}\n")
    monkeypatch.setattr(settings, "CONFIGS", tmp_path)

    given = ["--model", "mine", "--data-path", str(tmp_path), "--method", "baseline", "hgai"]
    assert pope_eval.main([*given, "--dry-run"]) == 2

    assert message in the_error(capsys)


def test_settings_of_another_language_model_are_refused(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A 13B checkpoint under the name of the 7B, whose heads are not its own."""
    tiny = str(settings.ROOT / "models/tiny-llava")
    given = flags(scenes, tmp_path, "--limit", "2", "--checkpoint", tiny)
    given[1] = "llava-1.5"

    assert pope_eval.main([*given, "--method", "baseline", "adhh"]) == 2
    assert pope_eval.main([*given, "--method", "baseline", "var@p=0.5"]) == 2

    first, second = [x for x in capsys.readouterr().err.splitlines() if "error:" in x]
    assert "adhh: heads in configs/llava-1.5.yaml is for a language model of 32 layers and" in first
    assert "but this one has 4 and 128; choose the --model of the checkpoint" in second
    assert pope_eval.main([*given, "--method", "baseline", "adhh@heads=2h1"]) == 0


@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("hgai@layers=3+2", "hgai"),
        ("hgai@layers=2+2", "hgai@layers=2"),
        ("var@sink_dims=65+46", "var@sink_dims=46+65"),
    ],
)
def test_an_arm_has_one_name(name: str, recorded: str) -> None:
    (found,) = arms_of(RunSettings(model="tiny-llava", method=(name,)))

    assert found.name == recorded


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "vissink"], "method 'vissink' is unknown: did you mean 'var'?"),
        (["--method", "ClearSight"], "did you mean 'vaf'?"),
        (["--method", "HGAI"], "did you mean 'hgai'?"),
        (["--method", "adhh@heads=2h1+2h1"], "as layer, h, head: 16h29+26h9"),
        (["--method", "adhh@heads=02h1"], "as layer, h, head: 16h29+26h9"),
        (["--method", "hgai@layers=3-2"], "setting '3-2' can't be read"),
        (
            ["--method", "hgai@layers=deep"],
            "hgai: layers='deep', but it is numbers, such as 2, 0-2",
        ),
        (["--method", "hgai@alpha=.inf"], "hgai: alpha=inf, but it must be a finite number"),
        (["--method", "spin", "--sweep", "kepd=0.3"], "has such a setting; they have layers, kept"),
        (
            ["--method", "hgai", "--method-settings", "hgai.alpha=1", "hgai.alpha=2"],
            "--method-settings hgai.alpha is given twice",
        ),
    ],
)
def test_what_is_written_wrong_is_one_sentence(
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert pope_eval.main(flags(scenes, tmp_path, *arguments, "--dry-run")) == 2

    assert message in the_error(capsys)


def test_a_repeat_starts_without_what_the_one_before_was_asked(
    scenes: Path, tmp_path: Path
) -> None:
    name = "var@sink_dims=46+65,tau=2.5,summ=0,released=true"
    given = ["--method", "baseline", name, "--sample", "--limit", "3", "--batch-size", "1"]
    built = flags(scenes, tmp_path / "built", "--method", "baseline", "--limit", "1")
    assert pope_eval.main(built) == 0  # writes the questions

    def ask(folder: Path, *arguments: str) -> None:
        asked = flags(scenes, folder, *given, *arguments)
        at = asked.index("--build-from")
        assert pope_eval.main(asked[:at] + asked[at + 2 :]) == 0

    ask(tmp_path / "both", "--repeats", "2")
    ask(tmp_path / "alone", "--seed", "1")

    alone = only_run(tmp_path / "alone/runs")
    (repeat,) = (tmp_path / "both/runs").rglob(alone.name)
    p_yes = [
        [answer.p_yes for answer in read_run(path).arms[name].answers] for path in (repeat, alone)
    ]
    assert p_yes[0] == p_yes[1]
