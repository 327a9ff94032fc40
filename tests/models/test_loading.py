"""Folders in transformers' format load by `from_pretrained`: all of them or nothing, and named."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from models.loading import load_pretrained
from tests.models.toys import FAMILIES, make_folder

ROOT = Path(__file__).resolve().parents[2]
Tensors = dict[str, torch.Tensor]
HALF, FULL = torch.float16, torch.float32


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        family: make_folder(family, tmp_path_factory.mktemp("toy") / "model") for family in FAMILIES
    }


def load(family: str, folder: Path, **options: Any) -> models.VLM:
    return models.load(family, checkpoint=str(folder), device="cpu", **options)


def changed(folder: Path, to: Path, change: Callable[[Tensors], None]) -> Path:
    """Return a copy of a checkpoint with other tensors."""
    shutil.copytree(folder, to)
    tensors = load_file(to / "model.safetensors")
    change(tensors)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


def last_words(name: str) -> str:
    """Return the part of a tensor's name that all versions of transformers have."""
    return ".".join(name.removeprefix("language_model.").split(".")[-3:])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("place", [0, 17, -1])
def test_a_missing_tensor_is_named(
    folders: dict[str, Path], tmp_path: Path, family: str, place: int
) -> None:
    name = sorted(load_file(folders[family] / "model.safetensors"))[place]
    holed = changed(folders[family], tmp_path / "holed", lambda tensors: tensors.pop(name))  # type: ignore[arg-type,return-value]

    with pytest.raises(models.ModelError, match=rf"lacks \S*{last_words(name)}; it is incomplete"):
        load(family, holed)


@pytest.mark.parametrize("family", FAMILIES)
def test_unexpected_tensors_are_named_and_old_buffers_are_not(
    folders: dict[str, Path], tmp_path: Path, family: str
) -> None:
    def more(tensors: Tensors) -> None:
        tensors["language_model.model.layers.1.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
        tensors["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]

    def other(tensors: Tensors) -> None:
        tensors["language_model.model.layers.77.mlp.up_proj.weight"] = torch.ones(2, 2)
        tensors["something.else"] = torch.ones(2)

    assert load(family, changed(folders[family], tmp_path / "more", more)).num_image_tokens
    with pytest.raises(
        models.ModelError, match=r"contains \S*layers.77.mlp.up_proj.weight and 1 more"
    ):
        load(family, changed(folders[family], tmp_path / "other", other))


def test_everything_that_is_wrong_is_one_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    def wrong(tensors: Tensors) -> None:
        first, second = sorted(name for name in tensors if "mlp.down_proj" in name)[:2]
        del tensors[first]
        tensors[second] = tensors[second][:3].contiguous()
        tensors["else"] = torch.ones(1)

    with pytest.raises(models.ModelError) as error:
        load("minigpt4", changed(folders["minigpt4"], tmp_path / "wrong", wrong))

    message = str(error.value)
    assert "\n" not in message
    for words in ("lacks", "0.mlp.down_proj.weight", "contains else", "1.mlp.down_proj.weight of"):
        assert words in message


def expected_dtype(family: str, name: str, module: torch.nn.Module) -> torch.dtype:
    """Return what the reference wrappers' mixed precisions store, by hand."""
    if family == "llava-1.5":
        return HALF
    if family == "shikra":
        return HALF if "vision_tower" in name else FULL
    if name.startswith("vision_model."):
        return HALF if isinstance(module, torch.nn.Linear) else FULL
    return HALF if name.startswith("language_model.") else FULL


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["mixed", "float16", "bfloat16", "float32"])
def test_every_parameter_is_rounded_once_from_what_is_stored(
    folders: dict[str, Path], family: str, dtype: str
) -> None:
    """Bit for bit: nothing goes through a lower precision on its way to a higher one."""
    exact = load(family, folders[family], dtype="float32").model.state_dict()
    stored = sorted(tensor.double().sum().item() for tensor in exact.values())
    on_disk = load_file(folders[family] / "model.safetensors").values()
    assert stored == sorted(tensor.double().sum().item() for tensor in on_disk)

    model = load(family, folders[family], dtype=dtype).model

    for name, found in model.named_parameters():
        module = model.get_submodule(name.rpartition(".")[0])
        wanted = expected_dtype(family, name, module) if dtype == "mixed" else getattr(torch, dtype)
        assert found.dtype is wanted, name
        assert torch.equal(found, exact[name].to(wanted)), name
    settings = models.model_settings(family)
    assert type(model) is models.wrapper_of(settings).model_class


def test_transformers_is_asked_for_device_map_and_quantisation(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    model_class = models.wrapper_of(models.model_settings("llava-1.5")).model_class

    def from_pretrained(_: object, **options: Any) -> None:
        asked.append(options)
        raise OSError("stop here")

    monkeypatch.setattr(model_class, "from_pretrained", from_pretrained)
    for device, kind in (("auto", None), ("cpu", "8bit"), ("cpu", "4bit")):
        with pytest.raises(models.ModelError, match="stop here"):
            models.load(
                "llava-1.5",
                checkpoint=str(folders["llava-1.5"]),
                device=device,
                dtype="bfloat16",
                quantization=kind,
            )

    assert [options["device_map"] for options in asked] == ["auto", {"": "cpu"}, {"": "cpu"}]
    assert "quantization_config" not in asked[0]
    eight, four = (options["quantization_config"] for options in asked[1:])
    assert (eight.load_in_8bit, four.load_in_4bit) == (True, True)
    assert (four.bnb_4bit_quant_type, four.bnb_4bit_use_double_quant) == ("nf4", True)
    assert four.bnb_4bit_compute_dtype is torch.bfloat16
    assert "model.vision_tower" in four.llm_int8_skip_modules
    assert "lm_head" in eight.llm_int8_skip_modules


def test_delta_weights_in_a_whole_folder_are_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    def subtract(tensors: Tensors) -> None:
        (name,) = [name for name in tensors if name.endswith("model.norm.weight")]
        tensors[name] *= 1e-3

    with pytest.raises(models.ModelError, match="contains delta weights"):
        load("shikra", changed(folders["shikra"], tmp_path / "delta", subtract))


def pickled(folder: Path, to: Path, extra: dict[str, object]) -> Path:
    """Return a checkpoint's copy with its weights as old versions saved them."""
    shutil.copytree(folder, to)
    torch.save({**load_file(to / "model.safetensors"), **extra}, to / "pytorch_model.bin")
    (to / "model.safetensors").unlink()
    return to


class Payload:
    """What an attacker's file would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("__import__('pathlib').Path('owned').touch()",)


def test_pickled_weights_load_and_nothing_in_them_is_executed(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = load("minigpt4", folders["minigpt4"]).model.state_dict()

    found = load("minigpt4", pickled(folders["minigpt4"], tmp_path / "plain", {}))
    with pytest.raises(models.ModelError, match="more than tensors and plain values"):
        load("minigpt4", pickled(folders["minigpt4"], tmp_path / "bad", {"x": Payload()}))

    for name, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, expected[name])
    assert not (tmp_path / "owned").exists()


def test_damaged_and_missing_shards_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["llava-1.5"], tmp_path / "sharded"))
    tensors = load_file(folder / "model.safetensors")
    half = sorted(tensors)[: len(tensors) // 2]
    homes = {name: f"model-{1 + (name in half)}.safetensors" for name in tensors}
    for file in set(homes.values()):
        part = {name: tensor for name, tensor in tensors.items() if homes[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": homes}))
    assert load("llava-1.5", folder).num_image_tokens

    second = folder / "model-2.safetensors"
    second.write_bytes(second.read_bytes()[:-100])
    with pytest.raises(models.ModelError, match=r"model-2.safetensors can't be read .*truncated"):
        load("llava-1.5", folder)
    second.unlink()
    with pytest.raises(models.ModelError, match=r"1 of 2 shards .*, model-2.safetensors among"):
        load("llava-1.5", folder)


@pytest.mark.parametrize("name", ["tiny-llava", "llava-1.5"])
def test_a_folder_is_loaded_through_eight_files_of_ours_at_most(
    folders: dict[str, Path], name: str
) -> None:
    folder = ROOT / "models/tiny-llava" if name == "tiny-llava" else folders[name]
    load(name, folder)  # imports what is needed
    start = models.load
    files: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(
            (str(ROOT / "models"), str(ROOT / "eah"))
        ):
            files.add(str(Path(frame.f_code.co_filename).relative_to(ROOT)))

    sys.setprofile(note)
    try:
        start(name, checkpoint=str(folder), device="cpu")
    finally:
        sys.setprofile(None)

    assert "models/loading.py" in files
    # Beside those that read one format, or refuse what is damaged.
    readers = {f"models/{file}.py" for file in ("json_files", "yaml_files", "library_errors")}
    readers |= {f"models/checkpoints/{file}.py" for file in ("tensors", "finite", "config_types")}
    assert files > readers
    assert len(files - readers) <= 8, sorted(files)


@pytest.mark.parametrize(
    "empty",
    ["checkpoint", "protocol", "device", "dtype", "quantization", "converted", "llm", "vision"],
)
def test_an_empty_name_is_an_error_and_not_the_default(empty: str) -> None:
    parts = {"parts": {empty: ""}} if empty in models.PARTS else {empty: " "}

    for ask in (models.load, models.describe):
        with pytest.raises(models.ModelError, match=f"^{empty} is empty .an unset shell var"):
            ask("tiny-llava", **parts)  # type: ignore[arg-type]
    with pytest.raises(models.ModelError, match=r"^model is empty"):
        models.load("")


def test_other_families_load_as_they_are_stored(folders: dict[str, Path]) -> None:
    """What `models.hf` asks for: an automatic class, the dtype of the file."""
    from transformers import AutoModelForImageTextToText

    model = load_pretrained(
        AutoModelForImageTextToText, str(folders["llava-1.5"]), dtype="auto", device="cpu"
    )

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training
