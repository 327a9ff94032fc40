"""Defaults < YAML < --options < flags, and a sentence for everything that is not allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

import models
from eah import EAHConfig
from eval.errors import EvaluationError
from eval.pope_eval import parser
from eval.run.flags import resolve
from eval.tasks.pope.settings import PopeSettings


def settings_of(*arguments: str) -> PopeSettings:
    return resolve(PopeSettings(), parser().parse(arguments))


def test_layers_of_settings(tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("beam: 2\nbatch-size: 3\nseed: 4\nmethod: eah\n")

    settings = settings_of(
        "--config", str(config), "--options", "batch_size=5", "seed=6", "--seed", "7"
    )

    assert settings.beam == 2
    assert settings.batch_size == 5
    assert settings.seed == 7
    assert settings.method == ("eah",)
    assert settings.num_workers == PopeSettings().num_workers


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--pope-type", "popular"], "pope_type", ("popular",)),
        (["--pope_type", "all"], "pope_type", ("random", "popular", "adversarial")),
        (["--data_path", "x"], "data_path", Path("x")),
        (["--gpu-id", "-1"], "device", "cpu"),
        (["--gpu_id", "1"], "device", "cuda:1"),
        (["--LAYER_NUM", "1"], "layers", (1,)),
        (["--LAYER-NUM", "1", "2"], "layers", (1, 2)),
        (["--THRES", "0.002"], "sink_threshold", 0.002),
        (["--sink_threshold", "0.01"], "sink_threshold", 0.01),
        (["--HEAD_NUM", "3"], "head", 3),
        (["--min-density", "0.15"], "min_density", 0.15),
        (["--receivers", "5"], "receivers", 5),
        (["--HEAD_NUM", "auto"], "head", None),
        (["--sample"], "sample", True),
    ],
)
def test_flags_work_in_every_spelling(arguments: list[str], name: str, value: object) -> None:
    assert getattr(settings_of(*arguments), name) == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "eha"], "method 'eha' is unknown: did you mean 'eah'"),
        (["--method", "eah", "eah"], "each once"),
        (["--pope-type", "randon"], "did you mean 'random'"),
        (["--parser", "oprea"], "did you mean 'opera'"),
        (["--batch-size", "0"], "batch_size=0, but at least 1"),
        (["--beam", "0"], "beam=0, but at least 1"),
        (["--gpu-id", "-2"], "a GPU is a number from 0"),
        (["--gpu-id", "0", "--device", "cpu"], "disagree"),
        (["--method", "opera+eha"], "method 'opera\\+eha': 'eha' is unknown: did you mean 'eah'"),
        (["--method", "baseline+eah"], "'baseline' stands alone; write two arms"),
        (["--method", "opera+vcd"], "an arm has one of opera, vcd, dola, pai, and eah beside it"),
        (["--method", "eah+eah"], "an arm has one of"),
        (["--method", "eah+vcd", "vcd+eah"], "name at least one, each once"),
        (["--options", "beem=5"], "--options: setting 'beem' is unknown: did you mean 'beam'"),
        (["--options", "beam"], "KEY=VALUE"),
        (["--options", "beam=five"], "beam is 'five', but it must be of type int"),
        (["--options", "sample=1"], "must be of type bool"),
    ],
)
def test_bad_settings_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        settings_of(*arguments)


def test_unknown_yaml_key_names_the_nearest(tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("batch_sise: 3\n")

    with pytest.raises(EvaluationError, match="'batch_sise' is unknown: did you mean 'batch_size'"):
        settings_of("--config", str(config))


def test_unknown_flag_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse(["--pope-tipe", "random"])

    assert stop.value.code == 2
    assert "--pope-tipe is unknown: did you mean --pope-type?" in capsys.readouterr().err


def test_a_prefix_is_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse(["--thres", "15"])  # neither --THRES nor --threshold

    assert "--thres is unknown" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], EAHConfig.preset("scale-free")),
        (["--preset", "paper"], EAHConfig.preset("paper")),
        (
            ["--THRES", "0.01"],
            EAHConfig.preset("scale-free", threshold=0.01, threshold_unit="attention"),
        ),
        (
            ["--min_density", "0.2", "--receivers", "3"],
            EAHConfig.preset("scale-free", min_density=0.2, receivers=3),
        ),
        (
            ["--LAYER_NUM", "2", "--HEAD_NUM", "3"],
            EAHConfig.preset("scale-free", layers=(2,), head=3),
        ),
    ],
)
def test_eah_flags_change_the_models_preset(arguments: list[str], expected: EAHConfig) -> None:
    settings = settings_of(*arguments)

    assert settings.eah_config(models.model_settings("tiny-llava")) == expected


@pytest.mark.parametrize("threshold", ["0", "1", "-0.1", "1.5"])
def test_threshold_outside_zero_to_one_is_refused(threshold: str) -> None:
    settings = settings_of(f"--THRES={threshold}")

    with pytest.raises(EvaluationError, match=r"lies in \(0, 1\)"):
        settings.eah_config(models.model_settings("llava-1.5"))
