"""Checkpoints, templates and calls that are odd: right, or refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    GenerationConfig,
    GPTNeoXConfig,
)

import eah
import models
from eval.pope_eval import main
from models.chat import Chat, collate, split_pixels
from models.decoding.base import MethodError
from models.decoding.dola import Dola
from models.decoding.vcd import Vcd
from models.errors import ModelError
from models.hf import HFVlm
from models.prefix_cache import PicturePrefixes, PrefixCache
from models.processor import HFTokenizer
from tests.models.hf.conftest import Loaded
from tests.models.hf.scenes import Scenes

GREY = Image.new("RGB", (96, 72), "gray")


@pytest.fixture
def folder(folder_of: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a LLaVA that may be changed."""
    return Path(shutil.copytree(folder_of("llava"), tmp_path / "llava"))


def wrapper(folder: Path, **arguments: Any) -> HFVlm:
    vlm = models.load("hf", checkpoint=str(folder), device="cpu", **arguments)
    assert isinstance(vlm, HFVlm)
    return vlm


def test_what_has_an_entry_for_each_token_is_padded_with_the_tokens() -> None:
    """As Mllama's cross attention mask, (1, S, pictures, tiles); tiles are filled behind."""
    rows = [
        {
            "input_ids": torch.arange(1, length + 1)[None],
            "cross_attention_mask": torch.ones(1, length, 1, tiles),
            "pixel_values": torch.ones(1, tiles, 3, 2, 2),
        }
        for length, tiles in ((3, 2), (5, 1))
    ]
    batch = collate(rows, 9, torch.device("cpu"), torch.float32).inputs

    assert batch["input_ids"].tolist() == [[9, 9, 1, 2, 3], [1, 2, 3, 4, 5]]
    assert batch["cross_attention_mask"][0, :, 0, 0].tolist() == [0, 0, 1, 1, 1]
    assert batch["cross_attention_mask"][1, :, 0, 1].tolist() == [0] * 5
    assert batch["pixel_values"][:, 1].sum(dim=(1, 2, 3)).tolist() == [12, 0]


def test_all_pixels_are_told_from_text() -> None:
    names = ("input_ids", "pixel_values", "high_res_pixel_values", "pixel_attention_mask")
    text, pixels = split_pixels({name: torch.zeros(1, 2) for name in names})
    assert list(text) == ["input_ids"]
    assert set(pixels) == set(names[1:])


def test_a_template_for_text_alone_is_refused(load: Callable[[str], Loaded]) -> None:
    loaded = load("llava")
    own = loaded.processor.chat_template
    loaded.processor.chat_template = "{% for m in messages %}USER: {{ m.content }}{% endfor %}"
    try:
        with pytest.raises(ModelError, match=r"is one for text alone .*; pass a checkpoint with"):
            Chat(loaded.processor).text("Is there a cat?")
    finally:
        loaded.processor.chat_template = own


def test_threads_do_not_meet(folder: Path) -> None:
    if Version(transformers.__version__).release[:2] == (5, 0):
        pytest.skip("transformers 5.0 replaces forwards while they run, for all threads")
    vlm = wrapper(folder)
    questions = [f"Is there a {word} in the image?" for word in ("cat", "dog", "car", "bus")] * 6
    alone = [vlm.generate(GREY, question, max_new_tokens=4) for question in questions]
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(lambda question: vlm.generate(GREY, question, max_new_tokens=4), questions)
        )
    assert together == alone


def test_one_token_behind_the_picture_is_no_decode_step(folder: Path) -> None:
    template = (
        "{% for part in messages[0]['content'] %}{{ part.get('text', '<image>') }}{% endfor %}"
    )
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    vlm = wrapper(folder)
    shown = vlm.encode([vlm.preprocessing.prepare(GREY, ())]) * 2
    assert {len(vlm.prompt_ids(word)) for word in ("a", "no")} == {len(vlm.prompt_ids("")) + 1}
    asked = (shown, ("a", "no"), models.Decoding(6))
    both = PicturePrefixes((0, 0), PrefixCache())
    with eah.enabled(vlm, eah.EAHConfig.preset("scale-free", threshold=0.1)) as handle:
        whole = vlm.answer_batch(*asked)
        expected = handle.report()
        assert vlm.answer_batch(*asked, prefixes=both) == whole
        assert handle.report() == expected


@pytest.mark.parametrize("pad", [-1, 10**6, "image"])
def test_padding_is_never_an_image_token_and_always_a_token(
    pad: int | str, load: Callable[[str], Loaded]
) -> None:
    loaded = load("llava")
    image = loaded.processor.tokenizer.convert_tokens_to_ids("<image>")
    config = GenerationConfig(eos_token_id=[], pad_token_id=image if pad == "image" else pad)
    tokenizer = HFTokenizer(loaded.processor.tokenizer, config, 700, [image])

    assert tokenizer.eos_ids == (loaded.processor.tokenizer.eos_token_id,)
    assert tokenizer.pad_id not in (-1, 10**6, image)


def test_settings_that_are_not_applied_are_said_and_recorded(
    folder: Path, scenes: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    (folder / "generation_config.json").write_text(
        json.dumps({**config, "repetition_penalty": 1.05, "do_sample": True, "temperature": 0.1})
    )
    flags = [
        *("--model", "hf", "--checkpoint", str(folder), "--data-path", str(scenes.images)),
        *("--pope-type", "random", "--pope-path", str(scenes.pope), "--limit", "2"),
        *("--max-new-tokens", "2", "--output-dir", str(tmp_path / "runs")),
    ]
    assert main(flags) == 0
    error = capsys.readouterr().err
    assert "generation_config.json sets repetition_penalty=1.05, which is not applied" in error
    (path,) = tmp_path.glob("runs/pope/hf-llava/*/run.json")
    run = json.loads(path.read_text(encoding="utf-8"))
    assert run["generation_config_not_applied"] == "repetition_penalty=1.05"


def test_vcd_with_two_kinds_of_pixels_is_refused(folder: Path) -> None:
    vlm = wrapper(folder)
    own = vlm.chat.processor.__class__.__call__

    def with_more(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = own(self, *args, **kwargs)
        return type(made)({**made, "high_res_pixel_values": made["pixel_values"]})

    two = type("Two", (vlm.chat.processor.__class__,), {"__call__": with_more})
    vlm.chat.processor.__class__ = two
    with pytest.raises(MethodError, match=r"high_res_pixel_values of shape .*; leave it out"):
        vlm.check_method(Vcd())


def test_dola_is_refused_before_it_is_asked(folder_of: Callable[[str], Path]) -> None:
    with pytest.raises(MethodError, match="does not expose"):
        wrapper(folder_of("blip-2")).check_method(Dola("low"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("preprocessor_config.json", "{"),
        ("processor_config.json", '{"processor_class": "NoSuchProcessor"}'),
        ("config.json", "{"),
        ("config.json", {"hidden_act": "nosuch"}),
        ("generation_config.json", '{"num_beams": -4}'),
        ("generation_config.json", '{"eos_token_id": "x"}'),
    ],
)
def test_damaged_files_are_one_sentence(
    file: str,
    content: str | dict[str, str],
    folder: Path,
    scenes: Scenes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if isinstance(content, dict):  # small as it is, with another value for the language model
        config = json.loads((folder / file).read_text(encoding="utf-8"))
        content = json.dumps({**config, "text_config": {**config["text_config"], **content}})
    (folder / file).write_text(content, encoding="utf-8")
    flags = [
        *("--model", "hf", "--checkpoint", str(folder), "--data-path", str(scenes.images)),
        *("--pope-type", "random", "--pope-path", str(scenes.pope), "--limit", "2"),
        *("--max-new-tokens", "2", "--output-dir", str(tmp_path / "runs")),
    ]
    status = main(flags)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    # A generation config that transformers ignores decides nothing here either.
    assert status == 2 or file == "generation_config.json"
    assert status == 0 or error.strip().splitlines()[-1].startswith("pope_eval: error: ")


def test_the_processor_of_another_family_is_refused(
    folder: Path, folder_of: Callable[[str], Path]
) -> None:
    for name in ("preprocessor_config.json", "processor_config.json"):
        shutil.copy(folder_of("llava-next") / name, folder)
    with pytest.raises(ModelError, match=r"can't run the output of .* copy the original one"):
        wrapper(folder)


@pytest.mark.parametrize("videos", [3, None, [3], "x"])
def test_videos_of_a_wrong_type_are_refused(videos: Any, folder: Path) -> None:
    with pytest.raises(ModelError, match="pass a list"):
        wrapper(folder).generate(GREY, "Is there a cat?", videos=videos)


def test_a_model_with_the_masks_that_gpt_neox_saved_loads(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    config.text_config = GPTNeoXConfig(
        hidden_size=config.text_config.hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=config.text_config.vocab_size,
    )
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    layer = next(name for name in weights if "layers.0.attention" in name).split("attention")[0]
    weights[f"{layer}attention.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})

    assert wrapper(folder).num_image_tokens


@pytest.mark.parametrize("half", ["\ud800", "what \udcff"])
def test_half_of_a_surrogate_pair_is_no_prompt(folder: Path, half: str) -> None:
    said = r"the prompt contains half of a surrogate pair \('\\ud[8c](00|ff)'\), which is not text"
    vlm = wrapper(folder)
    prepared = vlm.chat.prepare(GREY, ())
    for ask in (
        lambda: vlm.generate(GREY, half),
        lambda: vlm.prompt_ids(half),
        lambda: vlm.generate_batch(vlm.encode([prepared]), [half], models.Decoding(1)),
        lambda: models.show_prompt("hf", half, GREY, checkpoint=str(folder)),
        lambda: models.show_prompt("hf", "Is it?", GREY, checkpoint=str(folder), system=half),
    ):
        with pytest.raises(ModelError, match=said):
            ask()
