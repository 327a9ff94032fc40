"""`models.load("hf", ...)`: what is recognised, what is refused, and what is recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import eah
import models
from eval.pope_eval import main
from models.errors import ModelError
from models.hf import HFVlm
from tests.models.hf.scenes import Scenes

TINY = Path(models.__file__).parent / "tiny-llava"
GREY = Image.new("RGB", (96, 72), "gray")


@pytest.fixture(scope="session")
def llava(folder_of: Callable[[str], Path]) -> Path:
    return folder_of("llava")


def changed(folder: Path, target: Path, file: str = "config.json", **values: Any) -> Path:
    """Return a copy of a checkpoint with other values in one of its JSON files."""
    shutil.copytree(folder, target)
    content = json.loads((target / file).read_text(encoding="utf-8"))
    (target / file).write_text(json.dumps({**content, **values}), encoding="utf-8")
    return target


def test_load_answers_and_describes(llava: Path) -> None:
    vlm = models.load("hf", checkpoint=str(llava), device="cpu")
    described = models.describe("hf", checkpoint=str(llava), device="cpu")

    assert isinstance(vlm, HFVlm)
    assert next(vlm.model.parameters()).dtype == torch.float32
    assert vlm.generate(GREY, "Is there a cat?") != ""
    assert (described.model, described.family) == ("hf-llava", "llava")
    assert (described.protocol, described.dtype) == ("chat", "float32")


def test_half_precision_is_that_of_all_weights(llava: Path) -> None:
    vlm = models.load("hf", checkpoint=str(llava), device="cpu", dtype="bfloat16")
    assert {parameter.dtype for parameter in vlm.model.parameters()} == {torch.bfloat16}
    assert vlm.note is None
    assert HFVlm.resolve_precision("auto", "cuda:0").name == "bfloat16"
    assert HFVlm.resolve_precision("auto", "cpu").name == "float32"


def test_the_default_preset_is_scale_free() -> None:
    assert models.model_settings("hf").eah == {"preset": "scale-free"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "--model hf needs --checkpoint, a folder in transformers' format or a hub id"),
        ({"parts": {"llm": "x"}}, "--model hf loads a whole model, --checkpoint; leave out --llm"),
        ({"checkpoint": "/nowhere"}, "checkpoint '/nowhere' is not a file, folder or hub id"),
        ({"checkpoint": ""}, r"checkpoint is empty \(an unset shell variable\?\)"),
        ({"checkpoint": "LLAVA", "protocol": "opera"}, "'opera' is unknown to --model hf"),
        (
            {"checkpoint": "LLAVA", "dtype": "mixed"},
            "--dtype mixed is the precision of the paper's wrappers",
        ),
        ({"checkpoint": "LLAVA", "converted": "/x"}, "--converted /x is for original files"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    arguments: dict[str, Any], message: str, llava: Path
) -> None:
    if arguments.get("checkpoint") == "LLAVA":
        arguments = {**arguments, "checkpoint": str(llava)}
    with pytest.raises(ModelError, match=message) as error:
        models.load("hf", **arguments)
    assert "\n" not in str(error.value)


def test_a_folder_to_convert_to_is_refused_before_anything_is_loaded(llava: Path) -> None:
    """Also by --dry-run, and where all answers are recorded."""
    with pytest.raises(ModelError, match="--converted /x is for original files, and checkpoint"):
        models.describe("hf", checkpoint=str(llava), converted="/x")


def test_a_language_model_alone_is_refused(llava: Path, tmp_path: Path) -> None:
    folder = changed(llava, tmp_path / "x", model_type="llama", architectures=["LlamaForCausalLM"])
    with pytest.raises(ModelError, match="'llama', which does not answer questions"):
        models.load("hf", checkpoint=str(folder))


def test_a_model_type_that_transformers_lacks_is_refused(llava: Path, tmp_path: Path) -> None:
    code = {"AutoConfig": "configuration_x.XConfig"}
    folder = changed(llava, tmp_path / "x", model_type="internvl_chat", auto_map=code)
    (folder / "configuration_x.py").write_text("raise SystemExit('code of a checkpoint ran')")
    with pytest.raises(ModelError, match=r"'internvl_chat', which transformers .* can't load"):
        models.load("hf", checkpoint=str(folder))


def test_a_checkpoint_without_a_processor_is_refused(llava: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    shutil.copytree(llava, folder)
    for name in ("preprocessor_config.json", "processor_config.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="has no processor for pictures that transf"):
        models.load("hf", checkpoint=str(folder))


def test_another_size_of_weights_is_named(llava: Path, tmp_path: Path) -> None:
    text = json.loads((llava / "config.json").read_text(encoding="utf-8"))["text_config"]
    folder = changed(llava, tmp_path / "x", text_config={**text, "intermediate_size": 136})
    with pytest.raises(
        ModelError, match=r"contains .*mlp.*of (shape .*but the model needs|another shape)"
    ):
        models.load("hf", checkpoint=str(folder))


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (
            {
                "model_type": "llava",
                "text_config": {"model_type": "llama", "hidden_size": 4096},
                "vision_config": {"model_type": "clip_vision_model", "image_size": 336},
            },
            "llava-1.5",
        ),
        (
            {
                "model_type": "llava",
                "text_config": {"model_type": "llama", "hidden_size": 5120},
                "vision_config": {"model_type": "clip_vision_model", "image_size": 336},
            },
            "llava-1.5-13b",
        ),
        (
            {
                "model_type": "llava",
                "text_config": {"model_type": "mistral"},
                "vision_config": {"model_type": "pixtral"},
            },
            "hf",
        ),
        (
            {
                "model_type": "llava",
                "text_config": {"model_type": "llama", "hidden_size": 4096, "vocab_size": 128320},
                "vision_config": {"model_type": "clip_vision_model", "image_size": 336},
            },
            "hf",
        ),
        (
            {
                "model_type": "llava",
                "text_config": {"model_type": "llama", "hidden_size": 2048},
                "vision_config": {"model_type": "clip_vision_model", "image_size": 336},
            },
            "hf",
        ),
        (
            {"model_type": "llava", "mm_vision_tower": "openai/clip", "hidden_size": 4096},
            "llava-1.5",
        ),
        ({"model_type": "llava_llama", "hidden_size": 5120}, "llava-1.5-13b"),
        ({"model_type": "shikra"}, "shikra"),
        ({"model_type": "instructblip", "text_config": {"model_type": "llama"}}, "instructblip"),
        ({"model_type": "instructblip", "text_config": {"model_type": "t5"}}, "hf"),
        ({"model_type": "blip-2", "text_config": {"model_type": "llama"}}, "minigpt4"),
        ({"model_type": "blip-2", "text_config": {"model_type": "opt"}}, "hf"),
        ({"model_type": "qwen2_5_vl"}, "hf"),
    ],
)
def test_auto_knows_the_papers_four_by_their_config(
    config: dict[str, Any], name: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert models.recognise("auto", str(tmp_path)) == name


def test_auto_without_a_config_names_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--model auto needs --checkpoint"):
        models.load("auto")
    with pytest.raises(ModelError, match=r"has no config.json that names a model_type"):
        models.load("auto", checkpoint=str(tmp_path))


def test_auto_loads_what_it_recognises() -> None:
    """tiny-llava is no LLaVA-1.5, though of its classes."""
    assert models.describe("auto", checkpoint=str(TINY), device="cpu").model == "hf-tiny-llava"
    assert type(models.load("auto", checkpoint=str(TINY), device="cpu")).__name__ == "HFVlm"


def test_the_papers_models_take_no_system_message() -> None:
    with pytest.raises(ModelError, match="--system is for --model hf; protocol 'opera' of llava"):
        models.load("tiny-llava", system="Be brief.")


def pope(folder: Path, scenes: Scenes, output: Path, *more: str) -> list[str]:
    return [
        *("--model", "hf", "--checkpoint", str(folder), "--data-path", str(scenes.images)),
        *("--pope-type", "random", "--pope-path", str(scenes.pope), "--limit", "3"),
        *("--max-new-tokens", "2", "--output-dir", str(output), *more),
    ]


@pytest.mark.parametrize("more", [(), ("--protocol", "chat-short"), ("--system", "Be brief.")])
def test_the_first_prompt_is_shown_and_recorded(
    more: tuple[str, ...],
    llava: Path,
    scenes: Scenes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As transformers' processor makes it; the same for --dry-run and in run.json."""
    assert main(pope(llava, scenes, tmp_path, *more, "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert main(pope(llava, scenes, tmp_path, *more)) == 0

    (path,) = tmp_path.glob("pope/hf-llava/*/run.json")
    run = json.loads(path.read_text(encoding="utf-8"))
    question = scenes.questions["random"][0].question
    assert run["prompt"]["text"] in shown.encode().decode("unicode_escape")
    assert run["prompt"]["ids"] in shown
    assert question in run["prompt"]["text"]
    assert ("Answer with yes or no." in run["prompt"]["text"]) == ("chat-short" in more)
    assert ("Be brief." in run["prompt"]["text"]) == ("--system" in more)
    assert run["settings"].get("system") == ("Be brief." if "--system" in more else None)
    assert run["settings"]["protocol"] == ("chat-short" if "chat-short" in more else "chat")


def test_a_method_that_can_not_work_is_refused_before_any_answer(
    folder_of: Callable[[str], Path],
    scenes: Scenes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = folder_of("paligemma")
    assert main(pope(folder, scenes, tmp_path, "--method", "baseline", "pai")) == 2
    error = capsys.readouterr().err
    assert "method pai: PAI needs prompts as embeddings" in error
    assert not list(tmp_path.glob("**/answers.jsonl"))


def test_a_picture_that_runs_again_is_said(
    folder_of: Callable[[str], Path],
    scenes: Scenes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(pope(folder_of("paligemma"), scenes, tmp_path)) == 0
    assert "(no cached prefixes): with PaliGemmaForConditionalGeneration" in capsys.readouterr().err
    assert main(pope(folder_of("llava"), scenes, tmp_path)) == 0
    assert "no cached prefixes" not in capsys.readouterr().err


def test_eah_takes_the_wrapper(llava: Path) -> None:
    vlm = models.load("hf", checkpoint=str(llava), device="cpu")
    with eah.enabled(vlm, eah.EAHConfig.preset("scale-free")) as handle:
        vlm.generate(GREY, "Is there a cat?", max_new_tokens=2)
        assert handle.report()[0].image_tokens[0] > 0
