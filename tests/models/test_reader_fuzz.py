"""Whatever a checkpoint's files hold: an object or an error of ours, never another exception."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

import models
from models.checkpoints.tensors import check_tensors, read_tensors
from models.sources import find_source, weight_files
from models.tokenizer import JsonTokenizer, SentencePieceTokenizer
from tests.models.damage import sentence
from tests.models.hf import build
from tests.models.toys import make_folder

FUZZ: Callable[[Any], Any] = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck)
)
SLOW: Callable[[Any], Any] = settings(FUZZ, max_examples=25)  # type: ignore[arg-type]
PICTURE = Image.new("RGB", (40, 30), "gray")
numbers = st.integers(-(10**30), 10**30) | st.floats() | st.sampled_from([0, 1, -1, 64, 1 << 62])
scalars = st.none() | st.booleans() | numbers | st.text(st.characters(), max_size=8)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


def splice(whole: bytes, at: int, new: bytes) -> bytes:
    """Return bytes with others in their place."""
    at %= max(len(whole), 1)
    return whole[:at] + new + whole[at + len(new) :]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder("llava-1.5", tmp_path_factory.mktemp("toy") / "model")


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llava", tmp_path_factory.mktemp("hf") / "model")


HEADER = st.dictionaries(
    st.text(max_size=6),
    json_values
    | st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "I64", "BF16", "F8_E4M3", "C64", "F4"]) | json_values,
            "shape": st.lists(st.integers(-1, 9) | numbers, max_size=3) | json_values,
            "data_offsets": st.lists(st.integers(-1, 99) | numbers, max_size=3) | json_values,
        }
    ),
    max_size=4,
).map(lambda header: json.dumps(header).encode())


@FUZZ
@given(
    header=HEADER | st.binary(max_size=60),
    body=st.binary(max_size=80),
    said=st.none() | st.integers(0, (1 << 64) - 1),
)
@example(header=b"{}", body=b"", said=None)
@example(header=b"[]", body=b"abc", said=1 << 63)
@example(header=b'{"a":' + b"[" * 50_000, body=b"", said=None)
@example(header=b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}', body=b"", said=None)
@example(header=b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}', body=b"x", said=None)
def test_headers_of_safetensors(toy: Path, header: bytes, body: bytes, said: int | None) -> None:
    path = toy.parent / "fuzz.safetensors"
    length = len(header) if said is None else said
    path.write_bytes(length.to_bytes(8, "little") + header + body)

    sentence(lambda: read_tensors(path))
    sentence(lambda: check_tensors([path]))


@FUZZ
@given(content=json_values | st.fixed_dictionaries({"weight_map": json_values}) | st.binary())
@example(content={"weight_map": {}})
@example(content={"weight_map": {"a": 1}})
@example(content={"weight_map": {"a": "x" * 300}})
@example(content={"weight_map": {"a": "x\0y"}})
@example(content={"weight_map": {"a": "\ud800"}})
@example(content={"weight_map": {"a": "", "b": ["c"]}})
@example(content=b'{"weight_map":' + b"[" * 50_000)
def test_indices_of_shards(toy: Path, content: Any) -> None:
    folder = toy.parent / "indexed"
    folder.mkdir(exist_ok=True)
    index = folder / "model.safetensors.index.json"
    index.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    sentence(lambda: weight_files(folder))
    sentence(lambda: find_source(str(folder), what="checkpoint", advice="").identity)


def entries(content: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return changes of an object's own keys, and a few keys beside them."""
    keys = st.sampled_from(sorted(content)) | st.text(max_size=6)
    return st.dictionaries(keys, json_values, max_size=3)


TINY = models.settings.ROOT / "models/tiny-llava"
CONFIG: dict[str, Any] = json.loads((TINY / "config.json").read_bytes())
SECTIONS = {name: entries(CONFIG[name]) for name in ("text_config", "vision_config")}


@SLOW
@given(changes=entries(CONFIG), text=SECTIONS["text_config"], vision=SECTIONS["vision_config"])
@example(changes={}, text={"num_hidden_layers": 10**9}, vision={})
@example(changes={}, text={}, vision={"num_attention_heads": -1})
@example(changes={}, text={"hidden_act": "x"}, vision={"patch_size": 0})
@example(changes={"vision_config": "\ud800"}, text={}, vision={})
@example(changes={"model_type": {}}, text={}, vision={})
def test_configs(
    toy: Path, changes: dict[str, Any], text: dict[str, Any], vision: dict[str, Any]
) -> None:
    folder = toy.parent / "config"
    if not folder.exists():
        shutil.copytree(TINY, folder)
    content = {**CONFIG, "text_config": {**CONFIG["text_config"], **text}}
    content["vision_config"] = {**CONFIG["vision_config"], **vision}
    (folder / "config.json").write_text(json.dumps({**content, **changes}))

    for name in ("auto", "tiny-llava", "hf"):
        sentence(lambda name=name: models.describe(name, checkpoint=str(folder)))  # type: ignore[misc]
    sentence(lambda: models.load("tiny-llava", checkpoint=str(folder), device="cpu"))


@SLOW
@given(data=st.data())
def test_configs_of_tokenizers(vlm: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["tokenizer_config.json", "processor_config.json"]))
    whole = (vlm / name).read_bytes()
    changes = data.draw(entries(json.loads(whole)))
    try:
        (vlm / name).write_text(json.dumps({**json.loads(whole), **changes}))
        sentence(lambda: models.show_prompt("hf", "Is it?", PICTURE, checkpoint=str(vlm)))
    finally:
        (vlm / name).write_bytes(whole)


@SLOW
@given(at=st.integers(0, 1 << 20), new=st.binary(min_size=1, max_size=40))
@example(at=0, new=b"{")
@example(at=0, new=b"\x0a\xff\xff\xff\xff\x0f")
def test_tokenizers(toy: Path, at: int, new: bytes) -> None:
    model, fast = toy.parent / "fuzz.model", toy.parent / "fuzz.json"
    model.write_bytes(splice((TINY / "tokenizer.model").read_bytes(), at, new))
    fast.write_bytes(splice((TINY / "tokenizer.json").read_bytes(), at, new))

    sentence(lambda: SentencePieceTokenizer(model).encode("Is there a cat?"))
    sentence(lambda: JsonTokenizer(fast).encode("Is there a cat?"))
