"""The identity of a checkpoint follows every byte of every file that its answers depend on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

import models
from models.sources import Source, find_source

TINY = Path(__file__).resolve().parents[2] / "models/tiny-llava"
FILES = sorted(path.name for path in TINY.iterdir())


def find(path: Path) -> Source:
    return find_source(str(path), what="checkpoint", advice="")


def flip(path: Path, position: int) -> None:
    """Change one byte and set the times of reading and writing again."""
    before = path.stat()
    with open(path, "r+b") as content:
        content.seek(position)
        (byte,) = content.read(1)
        content.seek(position)
        content.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of tiny-llava; tests restore what they change."""
    return Path(shutil.copytree(TINY, tmp_path_factory.mktemp("tiny") / "copy"))


@pytest.mark.parametrize("name", FILES)
def test_one_byte_of_any_file_changes_the_identity(tiny: Path, name: str) -> None:
    source, size = find(tiny), (tiny / name).stat().st_size
    before = source.identity
    for position in (0, 1, size // 3, size // 2, size - 2, size - 1):
        flip(tiny / name, position)
        changed = source.identity
        flip(tiny / name, position)

        assert changed != before
    assert source.identity == before == find(TINY).identity


def test_one_byte_of_any_tensor_changes_the_identity(tiny: Path) -> None:
    path = tiny / "model.safetensors"
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    ranges = [entry["data_offsets"] for entry in header.values() if "data_offsets" in entry]
    source = find(tiny)
    seen = {source.identity}

    for first, stop in ranges:
        flip(path, start + (first + stop) // 2)
        seen.add(source.identity)  # the flips add up

    assert len(seen) == len(ranges) + 1 > 100
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        *("merges.txt", "vocab.txt", "qformer_tokenizer/vocab.txt"),
        *("qformer_tokenizer/tokenizer.json", "decoder_tokenizer/tokenizer.json"),
        "additional_chat_templates/default.jinja",
    ],
)
def test_vocabularies_and_templates_are_covered(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    without = find(tmp_path).identity
    path.write_text("a\nb\n")
    before = find(tmp_path).identity

    flip(path, 2)

    assert len({without, before, find(tmp_path).identity}) == 3


@pytest.mark.parametrize("shard", ["shards/1.safetensors", "1.part", "../elsewhere/1.bin"])
def test_shards_are_covered_wherever_their_index_finds_them(tmp_path: Path, shard: str) -> None:
    folder = tmp_path / "checkpoint"
    path = folder / shard
    for parent in (folder, path.parent):
        parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(1000))
    index = {"weight_map": {"x": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    before = find(folder).identity

    flip(path, 500)

    assert find(folder).identity != before


def test_a_part_that_is_one_file_is_covered(tmp_path: Path) -> None:
    path = tmp_path / "eva_vit_g.pth"
    torch.save({"x": torch.zeros(700_000)}, path)
    before = find(path).identity
    shutil.copy(path, tmp_path / "copy.pth")

    flip(path, path.stat().st_size // 2)

    assert find(path).identity != before
    assert find(tmp_path / "copy.pth").identity != before  # another name, the same bytes
    assert before.startswith("sha256:")
    assert len(before) == len("sha256:") + 16


def test_a_file_of_another_kind_is_not_part_of_the_identity(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = find(tmp_path).identity
    (tmp_path / "README.md").write_text("Read me.")
    (tmp_path / "checkpoint-500").mkdir()
    (tmp_path / "checkpoint-500/model.safetensors").write_bytes(b"1")

    assert find(tmp_path).identity == before


def test_a_folder_with_missing_shards_has_an_identity(tmp_path: Path) -> None:
    index = {"weight_map": {"x": "1.safetensors", "y": "2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "1.safetensors").write_bytes(b"1")
    before = find(tmp_path).identity

    flip(tmp_path / "1.safetensors", 0)

    assert find(tmp_path).identity != before


def test_weights_are_hashed_only_when_a_run_asks_for_their_identity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("weights were hashed")

    monkeypatch.setattr("models.sources.file_hashes", refuse)

    assert models.load("tiny-llava", device="cpu").num_image_tokens > 0
    with pytest.raises(AssertionError, match="weights were hashed"):
        models.describe("tiny-llava", device="cpu")


def test_a_hub_repository_is_identified_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--a--b/snapshots/0123abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    monkeypatch.setattr(
        "transformers.utils.cached_file", lambda *_, **__: str(snapshot / "config.json")
    )

    source = find_source("a/b", what="checkpoint", advice="")

    assert (source.path, source.identity) == (None, "hub:0123abc")


def test_no_config_of_an_image_text_model_is_taken_for_a_damaged_one(tmp_path: Path) -> None:
    """As transformers makes it by default: `vocab_size_per_layer_input` is no number of layers."""
    checked = 0
    for config_class in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        try:
            text = config_class().to_json_string(use_diff=False)
        except (TypeError, ValueError, AttributeError):  # it needs arguments
            continue
        (tmp_path / "config.json").write_text(text)
        found = find(tmp_path).config
        checked += found["model_type"] == config_class.model_type

    assert checked > len(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING) // 2


@pytest.mark.parametrize(
    ("name", "most"),
    [("num_hidden_layers", 10_000), ("n_layer", 10_000), ("depth", 10_000), ("num_experts", 1e5)],
)
def test_a_model_that_would_take_for_ever_to_build_is_refused(
    tmp_path: Path, name: str, most: float
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {name: int(most)}}))
    find(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {name: int(most) + 1}}))
    with pytest.raises(models.ModelError, match=f"has {name} "):
        find(tmp_path)
