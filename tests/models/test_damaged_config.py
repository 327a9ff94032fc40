"""A config, generation config or tokenizer that is damaged is one sentence, never a traceback."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import models
from tests.models import layout_files
from tests.models.damage import (
    FOREIGN,
    HTML,
    ODD,
    WRONG,
    json_damages,
    paths,
    place_odd,
    refused,
    replaced,
    sentence,
    take_away,
)
from tests.models.toys import FAMILIES, make_folder

PICTURE = Image.effect_noise((40, 30), 80).convert("RGB")
SAMPLE = 40  # of each family's wrong values
Folders = dict[str, Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("toys")
    return {family: make_folder(family, root / family) for family in FAMILIES}


def load(family: str, folder: Path) -> models.VLM:
    return models.load(family, checkpoint=str(folder), device="cpu")


def ask_all(family: str, folder: Path) -> None:
    """Do all that a user can do with a checkpoint."""
    models.describe(family, checkpoint=str(folder))
    models.show_prompt(family, "Is it?", PICTURE, checkpoint=str(folder))
    load(family, folder).generate(PICTURE, "Is it?", max_new_tokens=2)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_what_is_no_json_object_is_named(folders: Folders, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(models.settings.ROOT / "models/tiny-llava", tmp_path / "tiny"))
    (folder / "tokenizer.model").unlink()
    text = (folder / name).read_bytes()
    for damage in json_damages(text).values():
        (folder / name).write_bytes(damage)
        refused(lambda: load("tiny-llava", folder), str(folder / name))
    for odd in ODD:
        place_odd(folder / name, odd)
        refused(lambda: load("tiny-llava", folder), "tiny")
        take_away(folder / name)
    (folder / name).write_text(json.dumps(json.loads(text)), encoding="utf-16")
    assert load("tiny-llava", folder).num_image_tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_any_value_of_any_wrong_type_is_one_sentence_or_harmless(
    folders: Folders, tmp_path: Path, family: str
) -> None:
    folder = Path(shutil.copytree(folders[family], tmp_path / "model"))
    content = json.loads((folder / "config.json").read_bytes())
    cases = [(path, value) for path in paths(content) for value in WRONG]
    outcomes = []
    for path, value in random.Random(family).sample(cases, SAMPLE):
        (folder / "config.json").write_text(json.dumps(replaced(content, path, value)))
        outcomes.append(sentence(lambda: ask_all(family, folder)))
    assert None in outcomes  # what does not matter
    assert sum(map(bool, outcomes)) > SAMPLE // 4


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("text_config", "hidden_size"), 65),  # heads that don't divide it
        (("text_config", "num_attention_heads"), 7),
        (("text_config", "num_hidden_layers"), 10**9),
        (("vision_config", "num_attention_heads"), -1),
        (("vision_config", "patch_size"), 0),
        (("vision_config", "image_size"), []),
        (("text_config", "rope_scaling"), {"rope_type": "none of them"}),
        (("text_config", "model_type"), ["llama"]),
        (("text_config",), [1]),
        (("vision_config",), "x"),
        (("model_type",), {}),
        (("torch_dtype",), [1]),
        (("architectures",), 3),
    ],
)
@pytest.mark.parametrize("name", ["llava-1.5", "auto"])
def test_lying_sizes_and_types_are_refused(
    folders: Folders, tmp_path: Path, path: tuple[str, ...], value: Any, name: str
) -> None:
    folder = Path(shutil.copytree(folders["llava-1.5"], tmp_path / "model"))
    content = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(replaced(content, path, value)))
    said = sentence(lambda: ask_all(name, folder))
    if name == "llava-1.5" and path[-1] in ("torch_dtype", "architectures"):
        return  # not what decides a model of ours
    if name == "auto" and said is None:
        pytest.fail("it was loaded")  # the folder has no processor
    assert said is not None


@pytest.mark.parametrize("value", ["x", [1, "x"], 10**30, 1.5, True, {}, float("nan")])
@pytest.mark.parametrize("name", ["eos_token_id", "pad_token_id"])
def test_ids_that_are_none_are_refused(
    folders: Folders, tmp_path: Path, name: str, value: Any
) -> None:
    folder = Path(shutil.copytree(folders["llava-1.5"], tmp_path / "model"))
    content = json.loads((folder / "generation_config.json").read_bytes())
    (folder / "generation_config.json").write_text(json.dumps({**content, name: value}))
    refused(lambda: ask_all("llava-1.5", folder))


def test_a_tokenizer_of_another_kind_is_refused(folders: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["llava-1.5"], tmp_path / "model"))
    path = folder / "tokenizer.model"
    whole = path.read_bytes()
    for damage in (*FOREIGN.values(), whole[: len(whole) // 2], b"caf\xe9\n" * 30):
        path.write_bytes(damage)
        refused(lambda: load("llava-1.5", folder), str(path))
    for odd in ODD:
        place_odd(path, odd)
        refused(lambda: load("llava-1.5", folder), "tokenizer.model")
        take_away(path)


def test_a_vocabulary_that_the_qformer_can_t_use_is_refused(
    folders: Folders, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["instructblip"], tmp_path / "model"))
    path = folder / "qformer_tokenizer/vocab.txt"
    words = path.read_bytes()
    unlike = {"empty": b"", "text": b"hello\n", "html": HTML, "latin-1": b"caf\xe9\n" + words}
    unlike |= {
        "doubled": words + words,
        "longer": words + b"".join(b"w%d\n" % i for i in range(99)),
    }
    for damage in unlike.values():
        path.write_bytes(damage)
        refused(lambda: ask_all("instructblip", folder), "vocab.txt")
    for odd in ODD:
        place_odd(path, odd)
        refused(lambda: ask_all("instructblip", folder), "vocab.txt")
        take_away(path)


@pytest.mark.parametrize("part", ["llm", "clip"])
def test_configs_of_original_files_are_one_sentence(tmp_path: Path, part: str) -> None:
    original = layout_files.write_original("llava-1.5", tmp_path / "original")
    path = tmp_path / "original" / part / "config.json"
    content = json.loads(path.read_bytes())
    cases = [(at, value) for at in paths(content) for value in WRONG]

    def convert() -> None:
        made = tmp_path / "made"
        shutil.rmtree(made, ignore_errors=True)
        models.load("llava-1.5", parts=original.parts, device="cpu", converted=str(made)).generate(
            PICTURE, "Is it?", max_new_tokens=2
        )

    outcomes = []
    for at, value in random.Random(part).sample(cases, SAMPLE):
        path.write_text(json.dumps(replaced(content, at, value)))
        outcomes.append(sentence(convert))
    assert sum(map(bool, outcomes)) > SAMPLE // 8


@pytest.mark.parametrize("name", ["hf", "auto", "llava-1.5", "minigpt4"])
@pytest.mark.parametrize(
    "path",
    [
        *("a\0b", "x" * 300, "/" + "y" * 5000, "\ud800", "/dev/zero", "/dev/null", "~nobody/x"),
        *("/nowhere", ".", "http://x/y", "\n", "/etc/passwd", 3, [1], True, b"x"),
    ],
)
def test_paths_that_are_none_are_one_sentence(name: str, path: Any) -> None:
    refused(lambda: models.describe(name, checkpoint=path))
    refused(lambda: models.load(name, checkpoint=path, device="cpu"))


def test_folders_of_pipes_and_loops_do_not_hang(folders: Folders, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "eva.pth")
    (tmp_path / "self.bin").symlink_to(tmp_path / "self.bin")
    (tmp_path / "zero.bin").symlink_to("/dev/zero")
    (tmp_path / "again").symlink_to(tmp_path)
    for name in ("minigpt4", "hf", "auto"):
        refused(lambda name=name: models.load(name, checkpoint=str(tmp_path)), str(tmp_path))  # type: ignore[misc]

    folder = Path(shutil.copytree(folders["shikra"], tmp_path / "whole"))
    before = models.describe("shikra", checkpoint=str(folder)).weights
    os.mkfifo(folder / "extra.json")
    (folder / "self.bin").symlink_to(folder / "self.bin")
    (folder / "zero.txt").symlink_to("/dev/zero")
    assert models.describe("shikra", checkpoint=str(folder)).weights == before
    assert load("shikra", folder).num_image_tokens


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root can")
def test_a_folder_that_may_not_be_read_is_named(folders: Folders, tmp_path: Path) -> None:
    closed = Path(shutil.copytree(folders["shikra"], tmp_path / "closed"))
    file = Path(shutil.copytree(folders["shikra"], tmp_path / "file")) / "model.safetensors"
    closed.chmod(0o700)
    file.chmod(0o600)
    for above in (tmp_path, *tmp_path.parents[:-2]):
        above.chmod(0o755)
    os.seteuid(65534)
    try:
        refused(lambda: load("shikra", closed), f"folder {closed} can't be read", "permission")
        refused(lambda: models.describe("shikra", checkpoint=str(file.parent)), str(file))
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("to", ["a\0b", "\ud800", "x" * 300, "/proc/x", "/dev/null/x", "/dev/null"])
def test_a_folder_to_convert_to_that_can_t_be_made_is_one_sentence(tmp_path: Path, to: str) -> None:
    original = layout_files.write_original("llava-1.5", tmp_path / "original")
    refused(lambda: models.load("llava-1.5", parts=original.parts, device="cpu", converted=to))
