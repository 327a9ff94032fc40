"""Weights that are damaged, foreign, or no numbers are refused in one sentence that names them."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from models.blip import BlipVLM, MiniGPT4
from models.checkpoints.tensors import check_tensors
from tests.models import layout_files as files
from tests.models.damage import FOREIGN, ODD, WRONG, json_damages, place_odd, refused, take_away
from tests.models.toys import make_folder

Tensors = dict[str, torch.Tensor]
# What the original files of EVA and the Q-Former do not say.
TOWER = {"hidden_size": files.TOWER, "num_hidden_layers": files.BLOCKS}
TOWER |= {"num_attention_heads": files.TOWER_HEADS, "intermediate_size": files.TOWER_MLP}
TOWER |= {"image_size": files.IMAGE, "patch_size": files.PATCH}
QFORMER = {"hidden_size": files.Q_WIDTH, "num_hidden_layers": files.Q_LAYERS}
QFORMER |= {"num_attention_heads": files.Q_HEADS, "intermediate_size": files.Q_MLP}
SAFE, BIN, INDEX = "model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder("llava-1.5", tmp_path_factory.mktemp("toy") / "model")


@pytest.fixture
def folder(toy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy, tmp_path / "model"))


def load(folder: Path, **options: Any) -> models.VLM:
    return models.load("llava-1.5", checkpoint=str(folder), device="cpu", **options)


def saved(content: object, **options: Any) -> bytes:
    """Return what `torch.save` writes."""
    made = io.BytesIO()
    torch.save(content, made, **options)
    return made.getvalue()


def headers(whole: bytes) -> dict[str, bytes]:
    """Return files whose header lies."""
    length = int.from_bytes(whole[:8], "little")
    header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    first = min(name for name in header if name != "__metadata__")
    start, stop = header[first]["data_offsets"]

    def with_header(text: bytes | dict[str, Any], said: int | None = None) -> bytes:
        text = text if isinstance(text, bytes) else json.dumps(text).encode()
        return (len(text) if said is None else said).to_bytes(8, "little") + text + body

    def with_entry(**changes: Any) -> bytes:
        return with_header({**header, first: {**header[first], **changes}})

    return {
        "cut in the length": whole[:5],
        "cut in the header": whole[: 8 + length // 2],
        "cut in the tensors": whole[:-10],
        "longer": whole + b"abc",
        "header of exabytes": (1 << 63).to_bytes(8, "little") + whole[8:],
        "header of 100 MB": (10**8 + 1).to_bytes(8, "little") + whole[8:],
        "header too short": (length - 3).to_bytes(8, "little") + whole[8:],
        "header not JSON": with_header(b"{hello" + b" " * 50),
        "header a list": with_header(b"[]"),
        "header Latin-1": with_header(b'{"caf\xe9": 1}'),
        "header deep": with_header(b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
        "dtype unknown": with_entry(dtype="F99"),
        "dtype a number": with_entry(dtype=3),
        "dtype of another size": with_entry(dtype="I64"),
        "shape negative": with_entry(shape=[-1]),
        "shape huge": with_entry(shape=[1 << 62, 1 << 62]),
        "shape a text": with_entry(shape="x"),
        "offsets beyond": with_entry(data_offsets=[start, stop + 10**9]),
        "offsets turned": with_entry(data_offsets=[stop, start]),
        "offsets overlap": with_entry(data_offsets=[start + 4, stop + 4]),
        "one offset": with_entry(data_offsets=[1]),
        "a tensor left out": with_header({k: v for k, v in header.items() if k != first}),
    }


def test_safetensors_that_lie_are_named(folder: Path) -> None:
    path = folder / SAFE
    whole = path.read_bytes()
    for damage in (*headers(whole).values(), *FOREIGN.values()):
        path.write_bytes(damage)
        refused(lambda: load(folder), str(path), "download")
    for odd in ODD:
        place_odd(path, odd)
        refused(lambda: load(folder), str(folder))
        take_away(path)


class Payload:
    """What an attacker's file would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch owned",)


def pickles(tensors: Tensors) -> dict[str, bytes]:
    """Return files that torch may or may not read, and that hold no model."""
    old: dict[str, Any] = {"_use_new_zipfile_serialization": False}
    whole, legacy = saved(tensors), saved(tensors, **old)
    sparse = {**tensors, "s": torch.eye(3).to_sparse()}
    return {
        "cut": whole[: len(whole) // 2],
        "one byte less": whole[:-1],
        "old, cut": legacy[: len(legacy) // 2],
        "old, only its start": legacy[:40],
        "flipped": bytes(byte ^ (at % 997 == 0) for at, byte in enumerate(whole)),
        "code": saved({"x": Payload()}),
        "code in the old format": saved({"x": Payload()}, **old),
        "code without torch": pickle.dumps({"x": Payload()}),
        "plain pickle": pickle.dumps([1, 2, 3]),
        "a list": saved([1, 2]),
        "a number": saved(3),
        "nothing": saved({}),
        "one tensor": saved(torch.zeros(3)),
        "a module": saved(torch.nn.Linear(2, 2)),
        "numbers as names": saved({**tensors, 3: torch.zeros(2)}),
        "sparse": saved(sparse),
        "meta": saved({name: tensor.to("meta") for name, tensor in tensors.items()}),
        "deep": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    }


def test_pickled_files_that_hold_no_model_are_named_and_not_executed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    tensors = load_file(folder / SAFE)
    (folder / SAFE).unlink()
    path = folder / BIN
    for damage in (*pickles(tensors).values(), *FOREIGN.values()):
        path.write_bytes(damage)
        refused(lambda: load(folder), str(folder))
    for odd in ODD:
        place_odd(path, odd)
        refused(lambda: load(folder), str(folder))
        take_away(path)
    assert not (folder / "owned").exists()


def test_torchs_advice_to_read_unsafely_is_not_passed_on(folder: Path) -> None:
    (folder / SAFE).unlink()
    (folder / BIN).write_bytes(FOREIGN["tar"])
    with pytest.raises(models.ModelError, match="nothing in it was executed") as error:
        load(folder)
    assert "weights_only" not in str(error.value)


def test_indices_that_lie_are_named(folder: Path) -> None:
    tensors = load_file(folder / SAFE)
    names = sorted(tensors)
    homes = {name: f"model-{1 + (at % 2)}.safetensors" for at, name in enumerate(names)}
    for file in set(homes.values()):
        part = {name: tensor for name, tensor in tensors.items() if homes[name] == file}
        save_file(part, folder / file, {"format": "pt"})
    (folder / SAFE).unlink()
    path, good = folder / INDEX, {"metadata": {}, "weight_map": homes}
    text = json.dumps(good).encode()
    for damage in json_damages(text).values():
        path.write_bytes(damage)
        refused(lambda: load(folder), str(path))
    os.mkfifo(folder / "pipe")
    (folder / "inside").mkdir()
    odd_homes = ["../no.safetensors", "/dev/zero", "a\0b", "x" * 300, ".", "inside", "pipe"]
    odd_homes += ["model-1.safetensors/", "http://x/y", "\ud800.safetensors", "config.json"]
    for value in (*WRONG, *odd_homes):
        path.write_text(json.dumps({**good, "weight_map": {**homes, names[0]: value}}))
        refused(lambda: load(folder), str(folder))
        path.write_text(json.dumps({**good, "weight_map": value}))
        refused(lambda: load(folder), str(path))
        models.describe("llava-1.5", checkpoint=str(folder))
    path.write_bytes(text)
    assert load(folder).num_image_tokens

    save_file(tensors, folder / "model-2.safetensors", {"format": "pt"})
    refused(lambda: load(folder), "model-2.safetensors contains", "again")


def change(folder: Path, do: Callable[[Tensors], None]) -> None:
    tensors = load_file(folder / SAFE)
    do(tensors)
    save_file(tensors, folder / SAFE, {"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("word", ["lm_head", "vision_tower", "norm.weight", "projector"])
def test_numbers_that_are_none_are_named(folder: Path, value: float, place: int, word: str) -> None:
    chosen = next(name for name in sorted(load_file(folder / SAFE)) if word in name)

    def damage(tensors: Tensors) -> None:
        tensors[chosen].view(-1)[place] = value

    change(folder, damage)
    last = ".".join(chosen.split(".")[-2:])
    refused(lambda: load(folder), str(folder), "NaN or infinite numbers", last, "float32")


def test_what_overflows_in_float16_is_named_and_loads_in_others(folder: Path) -> None:
    def damage(tensors: Tensors) -> None:
        tensors["language_model.lm_head.weight"][0, 0] = 1e5

    change(folder, damage)
    for dtype in ("float16", "mixed"):
        refused(lambda: load(folder, dtype=dtype), "lm_head.weight (as float16)", "bfloat16")  # noqa: B023
    assert load(folder, dtype="bfloat16").num_image_tokens
    assert load(folder, dtype="float32").num_image_tokens


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.int8])
def test_weights_that_are_no_floating_point_numbers_are_named(
    folder: Path, dtype: torch.dtype
) -> None:
    def damage(tensors: Tensors) -> None:
        name = "language_model.lm_head.weight"
        tensors[name] = tensors[name].to(dtype)

    change(folder, damage)
    refused(lambda: load(folder), SAFE, "lm_head.weight as ", str(dtype).removeprefix("torch."))


def test_names_are_shown_in_one_line(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({"a\nb\0" + "x" * 999: torch.zeros(1)}))
    refused(lambda: load(folder), r"contains a b\x00xxx", "which this model does not have")


@pytest.mark.parametrize(
    ("family", "part", "file"),
    [
        ("llava-1.5", "vision", "clip/pytorch_model.bin"),
        ("minigpt4", "projector", "pretrained_minigpt4_7b.pth"),
    ],
)
def test_original_files_that_hold_no_model_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, part: str, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for wrapper in (BlipVLM, MiniGPT4):
        monkeypatch.setattr(wrapper, "vision_sizes", TOWER)
        monkeypatch.setattr(wrapper, "qformer_sizes", QFORMER)
        monkeypatch.setattr(wrapper, "num_query_tokens", files.QUERIES)
    original = files.write_original(family, tmp_path / "original")
    path, tensors = tmp_path / "original" / file, original.tensors[part]

    def convert() -> None:
        models.load(family, parts=original.parts, device="cpu", converted=str(tmp_path / "made"))

    for damage in (*pickles(tensors).values(), *FOREIGN.values()):
        path.write_bytes(damage)
        refused(convert, str(path) if path.suffix == ".pth" else str(path.parent))
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    broken = {**tensors, name: tensors[name].clone()}
    broken[name].view(-1)[0] = float("nan")
    torch.save(broken, path)
    refused(convert, str(path), "NaN or infinite numbers in", name)
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
@pytest.mark.parametrize("name", ["attention.bias", "h.0.attn.bias", "h.0.attn.attention.bias"])
def test_causal_masks_that_older_models_saved_are_no_damaged_biases(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    path = tmp_path / SAFE
    save_file({name: torch.ones(1, 1, 8, 8).to(dtype)}, path)
    check_tensors([path])
    for other, shape in ((name, (8,)), (name, (1, 1, 8, 4)), ("mlp.bias", (1, 1, 8, 8))):
        save_file({other: torch.ones(shape).to(dtype)}, path)
        refused(lambda: check_tensors([path]), str(path), other)
