"""Defaults < YAML < --options < flags, and a sentence for everything that is not allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from eah import EAHConfig
from eval.errors import EvaluationError
from eval.evaluate import parser_of
from eval.evaluate import settings_of as evaluate_settings
from eval.run.arms import arms_of
from eval.run.flags import Parser
from eval.tasks.pope.task import Pope, PopeSettings


def parser() -> Parser:
    return parser_of(Pope, "")


def settings_of(*arguments: str) -> PopeSettings:
    settings = evaluate_settings(Pope, parser(), arguments)
    assert isinstance(settings, PopeSettings)
    return settings


def test_layers_of_settings(tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text('beam: 2\nbatch-size: 3\nseed: 4\nmethod: eah\nsweep: ["layers=0,1"]\n')

    settings = settings_of(
        "--config", str(config), "--options", "batch_size=5", "seed=6", "--seed", "7"
    )

    assert settings.beam == 2
    assert settings.batch_size == 5
    assert settings.seed == 7
    assert settings.method == ("eah",)
    assert [arm.name for arm in arms_of(settings)] == ["eah@layers=0", "eah"]
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
        (["--layers", "2"], "layers", (2,)),
        (["--THRES", "0.002"], "sink_threshold", 0.002),
        (["--sink_threshold", "0.01"], "sink_threshold", 0.01),
        (["--HEAD_NUM", "3"], "head", 3),
        (["--HEAD_NUM", "auto"], "head", None),
        (["--rule", "scale_free"], "rule", "scale_free"),
        (["--min-density", "0.15"], "min_density", 0.15),
        (["--receivers", "5"], "receivers", 5),
        (["--scale-factor", "60"], "scale_factor", 60.0),
        (["--num-beams", "5"], "beam", 5),
        (["--batch-size", "auto"], "batch_size", None),
        (["--sample"], "sample", True),
        (["--no-prefix-reuse"], "prefix_reuse", False),
        (["--accept_old"], "accept_old", True),
        (["--sweep", "layers=0,1", "head=2"], "sweep", ("layers=0,1", "head=2")),
    ],
)
def test_flags_work_in_every_spelling(arguments: list[str], name: str, value: object) -> None:
    assert getattr(settings_of(*arguments), name) == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "eha"], "method 'eha' is unknown: did you mean 'eah'"),
        (["--method", "eah", "eah"], "each once"),
        (["--method", "eah+vcd", "vcd+eah"], "are the same arm"),
        (
            ["--method", "opera+vcd"],
            "an arm has one of opera, vcd, .*spin, with or without",
        ),
        (["--pope-type", "randon"], "did you mean 'random'"),
        (["--parser", "oprea"], "did you mean 'opera'"),
        (["--batch-size", "0"], "batch_size=0, but at least 1"),
        (["--beam", "0"], "beam=0, but at least 1"),
        (["--limit", "0"], "limit=0, but at least 1"),
        (["--max-new-tokens", "0"], "max_new_tokens=0, but at least 1"),
        (["--build-images", "0"], "build_images=0, but at least 1"),
        (["--num-workers", "-1"], "num_workers=-1, but it must be at least 0"),
        (["--gpu-id", "-2"], "pass the number of a GPU, from 0"),
        (["--gpu-id", "0", "--device", "cpu"], "disagree"),
        (["--options", "beem=5"], "--options: setting 'beem' is unknown: did you mean 'beam'"),
        (["--options", "beam"], "KEY=VALUE"),
        (["--options", "beam=["], "--options 'beam=\\[': the value is not valid YAML"),
        (["--options", "beam=five"], "beam is 'five', but it must be of type int"),
        (["--options", "sample=1"], "must be of type bool"),
    ],
)
def test_bad_settings_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as error:
        settings_of(*arguments)

    assert "\n" not in str(error.value)


def test_the_same_device_may_be_named_twice() -> None:
    assert settings_of("--gpu-id", "-1", "--device", "cpu").device == "cpu"


def test_unknown_yaml_key_names_the_nearest(tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("batch_sise: 3\n")

    with pytest.raises(EvaluationError, match="'batch_sise' is unknown: did you mean 'batch_size'"):
        settings_of("--config", str(config))


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
    baseline, eah = arms_of(settings_of("--model", "tiny-llava", *arguments))

    assert baseline.eah is None
    assert eah.eah == expected


@pytest.mark.parametrize("threshold", ["0", "1", "-0.1", "1.5"])
def test_threshold_outside_zero_to_one_is_refused(threshold: str) -> None:
    with pytest.raises(EvaluationError, match=r"EAH settings of arm eah: .* is in \(0, 1\)"):
        settings_of(f"--THRES={threshold}")


def test_pictures_need_a_folder(tmp_path: Path) -> None:
    assert settings_of("--data-path", str(tmp_path)).pictures_folder() == tmp_path
    with pytest.raises(EvaluationError, match="no pictures: pass --data-path"):
        settings_of().pictures_folder()
    with pytest.raises(EvaluationError, match=r"--data-path .*nowhere is not a folder"):
        settings_of("--data-path", str(tmp_path / "nowhere")).pictures_folder()


@pytest.mark.parametrize(
    "flag",
    [
        *("--checkpoint", "--llm", "--vision", "--qformer", "--projector", "--qformer-tokenizer"),
        *("--converted", "--device", "--dtype", "--protocol", "--quantization", "--model"),
    ],
)
def test_an_unset_shell_variable_is_an_error_and_not_the_default(flag: str, tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text(f'{flag.removeprefix("--")}: ""\n')
    name = flag.removeprefix("--").replace("-", "_")

    for arguments in ([flag, ""], [flag, " "], [f"{flag}="], ["--config", str(config)]):
        with pytest.raises(EvaluationError, match=f"{flag} is empty .an unset shell variable"):
            settings_of(*arguments)
    with pytest.raises(EvaluationError, match=f"'{name}=': the value is empty"):
        settings_of("--options", f"{name}=")


def test_the_converted_folder_reaches_the_model() -> None:
    assert settings_of("--converted", "x/y").model_arguments()["converted"] == "x/y"
    assert settings_of().model_arguments()["converted"] is None
