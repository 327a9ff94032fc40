"""Arms and their decoding methods, from names and flags to the result table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from eval import chair_eval, pope_eval
from eval.errors import EvaluationError
from eval.pope_eval import parser, resolve
from eval.run.arms import ArmName, as_record, method_settings, parse_arm, parse_arms, read_methods
from eval.tasks.pope.settings import PopeSettings
from models.decoding.opera import Opera
from models.decoding.vcd import Vcd
from scripts.make_scenes import write_scenes

PAPERS_FLAGS = [
    "--beam", "5", "--scale_factor", "50", "--threshold", "15",
    "--num_attn_candidates", "5", "--penalty_weights", "1",
]  # fmt: skip


def settings_of(*arguments: str) -> PopeSettings:
    return resolve(PopeSettings(), parser().parse(list(arguments)))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=4, seed=2014)
    return folder


def flags(scenes: Path, tmp_path: Path) -> list[str]:
    return [
        "--model", "tiny-llava", "--gpu-id", "-1", "--data-path", str(scenes / "val2014"),
        "--output-dir", str(tmp_path / "runs"),
    ]  # fmt: skip


def pope(scenes: Path, tmp_path: Path) -> list[str]:
    built = str(scenes / "annotations/instances_val2014.json")
    folder = str(tmp_path / "pope")
    return [*flags(scenes, tmp_path), "--build-from", built, "--pope-path", folder,
            "--pope-type", "random"]  # fmt: skip


def run_folder(tmp_path: Path, benchmark: str) -> Path:
    (folder,) = (tmp_path / f"runs/{benchmark}/tiny-llava").iterdir()
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "arm"),
    [
        ("baseline", ArmName(eah=False, method=None)),
        ("eah", ArmName(eah=True, method=None)),
        ("opera", ArmName(eah=False, method="opera")),
        ("opera+eah", ArmName(eah=True, method="opera")),
        ("eah+opera", ArmName(eah=True, method="opera")),
        ("vcd+eah", ArmName(eah=True, method="vcd")),
    ],
)
def test_names_say_what_an_arm_is(name: str, arm: ArmName) -> None:
    assert parse_arm(name) == arm


def test_arms_are_recorded_under_one_name() -> None:
    assert parse_arms(["baseline", "eah+opera", "eah"]) == ("baseline", "opera+eah", "eah")


@pytest.mark.parametrize(
    ("arguments", "arms"),
    [
        ([], ("baseline", "eah")),
        (PAPERS_FLAGS, ("baseline", "opera+eah")),
        ([*PAPERS_FLAGS, "--method", "opera"], ("opera",)),
        (["--options", "threshold=25"], ("baseline", "opera+eah")),
        (["--method", "baseline", "dola", "pai+eah"], ("baseline", "dola", "pai+eah")),
    ],
)
def test_operas_flags_mean_opera_on_eah(arguments: list[str], arms: tuple[str, ...]) -> None:
    assert settings_of(*arguments).arms() == arms


def test_flags_reach_the_method() -> None:
    settings = settings_of("--beam", "5", "--threshold", "25", "--num_attn_candidates", "1")

    (opera,) = settings.decoding_methods().values()

    assert opera == Opera(scale_factor=50.0, threshold=25, num_attn_candidates=1)


def test_settings_of_any_method_can_be_changed() -> None:
    settings = settings_of(
        "--method", "vcd", "dola", "--method-settings", "vcd.alpha=0.5", "vcd.noise-step=700",
        "dola.layers=[1, 3]",
    )  # fmt: skip

    methods = settings.decoding_methods()

    assert methods["vcd"] == Vcd(alpha=0.5, noise_step=700)
    assert methods["dola"].layers == (1, 3)
    assert as_record(methods)["vcd"] == {"alpha": 0.5, "beta": 0.1, "noise_step": 700}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["vcd.alpha"], "settings are written METHOD.SETTING=VALUE"),
        (["alpha=1"], "settings are written METHOD.SETTING=VALUE"),
        (["vdc.alpha=1"], "method 'vdc' is unknown: did you mean 'vcd'"),
        (["vcd.alphas=1"], "vcd has no setting 'alphas': did you mean 'alpha'"),
        (["vcd.alpha=much"], "vcd.alpha is 'much', but it must be of type float"),
        (["vcd.beta=2"], "vcd: beta=2.0, but it must be between 0 and 1"),
        (["pai.alpha=1"], r"pai. is a setting of pai, which no arm of this run has \(vcd, eah\)"),
    ],
)
def test_bad_settings_are_one_sentence(changes: list[str], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        method_settings(["vcd", "eah"], {}, changes)


def test_every_method_builds_with_its_published_settings() -> None:
    names = list(read_methods())
    built = method_settings(names, {}, [])

    for name, method in built.items():
        published = dict(read_methods()[name])
        assert type(method).__name__ == str(published.pop("class")).split(".")[-1]
        assert published.items() <= as_record({name: method})[name].items()
    assert set(built) == {"opera", "vcd", "dola", "pai"}


def test_every_published_setting_has_its_source() -> None:
    path = Path(__file__).resolve().parents[3] / "configs/methods.yaml"
    lines = [line for line in path.read_text().splitlines() if "class:" in line]

    assert len(lines) == len(read_methods())
    assert all("}  # " in line for line in lines)


def test_the_papers_pope_command_runs_with_operas_flags(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pope_eval.main([*pope(scenes, tmp_path), *PAPERS_FLAGS, "--limit", "6"]) == 0

    folder, printed = run_folder(tmp_path, "pope"), capsys.readouterr().out
    settings = json.loads((folder / "run.json").read_text())["settings"]
    line = next(x for x in printed.splitlines() if x.startswith("| opera+eah"))
    assert settings["method"] == ["baseline", "opera+eah"]
    assert settings["decoding_methods"]["opera"]["threshold"] == 15
    assert settings["eah"]["layers"] == [1]
    assert {row["method"] for row in rows_of(folder)} == {"baseline", "opera+eah"}
    assert all(
        found["image_tokens"] == 64 for row in rows_of(folder) for found in row.get("eah", [])
    )
    assert all("eah" in row for row in rows_of(folder) if row["method"] == "opera+eah")
    # two passes per token; search can go on after the best answer's end
    assert 2.0 <= float(line.split("|")[-4]) < 5.0
    assert float(line.split("|")[-3]) > 0


def test_the_papers_chair_command_runs_with_operas_flags(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*flags(scenes, tmp_path), *PAPERS_FLAGS, "--limit", "2", "--max-new-tokens", "20"]

    assert chair_eval.main(given) == 0

    folder = run_folder(tmp_path, "chair")
    captions = (folder / "captions_opera+eah.jsonl").read_text().splitlines()
    assert len(captions) == 2
    assert "| opera+eah |" in capsys.readouterr().out


def test_all_methods_are_arms_of_one_run_and_one_table(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ["baseline", "eah", "vcd", "dola", "pai", "vcd+eah", "pai+eah", "dola+eah"]

    assert pope_eval.main([*pope(scenes, tmp_path), "--method", *arms, "--limit", "8"]) == 0

    printed = capsys.readouterr().out
    lines = {line.split("|")[1].strip(): line for line in printed.splitlines() if "|" in line}
    assert set(arms) <= set(lines)
    assert {arm: float(lines[arm].split("|")[-4]) for arm in arms} == dict.fromkeys(arms, 1.0)
    heads = [
        {
            (row["pope_type"], row["question_id"]): row["eah"][0]["head"]
            for row in rows_of(run_folder(tmp_path, "pope"))
            if row["method"] == arm
        }
        for arm in ("eah", "vcd+eah", "pai+eah", "dola+eah")
    ]
    assert heads[0] == heads[1] == heads[2] == heads[3]


def test_vcds_noise_is_the_same_after_a_resume(scenes: Path, tmp_path: Path) -> None:
    given = [*pope(scenes, tmp_path), "--method", "vcd", "--limit", "10", "--batch-size", "4"]
    assert pope_eval.main(given) == 0
    folder = run_folder(tmp_path, "pope")
    before = rows_of(folder)
    kept = (folder / "predictions.jsonl").read_text().splitlines(keepends=True)[:5]
    (folder / "predictions.jsonl").write_text("".join(kept))

    assert pope_eval.main(given) == 0

    assert rows_of(folder) == before


def test_a_run_without_methods_is_the_run_it_was(scenes: Path, tmp_path: Path) -> None:
    assert pope_eval.main([*pope(scenes, tmp_path), "--limit", "2"]) == 0

    settings = json.loads((run_folder(tmp_path, "pope") / "run.json").read_text())["settings"]
    assert "decoding_methods" not in settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "opera"], "method opera: Opera is a beam search, but one beam was asked for"),
        (["--method", "opera", "--beam", "3", "--sample"], "but sampling was asked for"),
        (
            ["--beam", "2", "--num_attn_candidates", "9999"],
            "method opera+eah: num_attn_candidates=9999, but the model has 642 tokens",
        ),
        (["--method", "dola", "--beam", "2"], "method dola: Dola chooses one token after another"),
        (
            ["--method", "pai+eah", "--LAYER_NUM", "2"],
            "method pai+eah: PAI changes the layers from 2 on and EAH layer 2",
        ),
        (
            ["--method", "dola", "--method-settings", "dola.layers=[9]"],
            "method dola: layers=[9], but early layers are 0..3",
        ),
        (
            ["--method", "pai", "--method-settings", "pai.start_layer=4"],
            "start_layer=4, but the model has layers 0..3",
        ),
    ],
)
def test_what_a_method_can_not_do_is_one_sentence(
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert pope_eval.main([*pope(scenes, tmp_path), "--limit", "2", *arguments]) == 2

    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]


def test_eahs_threshold_given_as_operas_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings_of("--threshold", "0.002")

    assert "EAH's own is --THRES" in capsys.readouterr().err


def test_arms_answer_as_they_do_alone(scenes: Path, tmp_path: Path) -> None:
    """A method of one arm leaves nothing behind for the next."""
    torch.manual_seed(1)
    together = [*pope(scenes, tmp_path / "a"), "--limit", "6", "--method", "vcd", "pai", "dola"]
    assert pope_eval.main([*together, "baseline"]) == 0
    assert (
        pope_eval.main([*pope(scenes, tmp_path / "b"), "--limit", "6", "--method", "baseline"]) == 0
    )

    first = rows_of(run_folder(tmp_path / "a", "pope"))
    second = rows_of(run_folder(tmp_path / "b", "pope"))
    assert [row for row in first if row["method"] == "baseline"] == second
