"""Original files are converted once, into a folder that is complete or not there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoTokenizer

import models
from models.checkpoints import convert
from models.checkpoints.layouts import LAYOUTS, saved_name
from models.file_hashes import cache_folder
from models.tokenizer import SentencePieceTokenizer
from tests.models.layout_files import Original, write_original

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def original(tmp_path: Path) -> Original:
    return write_original("shikra", tmp_path / "original")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EAH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(original: Original, converted: Path | None = None) -> models.VLM:
    return models.load(
        original.family,
        parts=original.parts,
        device="cpu",
        converted=None if converted is None else str(converted),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def left_over(folder: Path) -> list[str]:
    """Return what stands in a folder, locks aside."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_the_first_load_says_where_and_how_large_and_the_next_reuse_it(
    original: Original, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = load(original)
    (made,) = (own_cache / "converted").glob("shikra-*")
    size = sum(path.stat().st_size for path in made.glob("*.safetensors"))
    (line,) = caplog.messages
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    second = load(original)

    assert made.parent == cache_folder() / "converted"
    assert str(made) in line
    assert float(line.split("will take ")[1].removesuffix(" GB")) == pytest.approx(size / 1e9, 0.05)
    assert caplog.messages == [line]
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])


def test_other_files_are_converted_to_another_folder(
    original: Original, own_cache: Path, tmp_path: Path
) -> None:
    load(original)
    other = write_original("shikra", tmp_path / "other")
    weights = torch.load(Path(other.parts["vision"]) / "pytorch_model.bin")
    weights["vision_model.pre_layrnorm.bias"] += 1
    torch.save(weights, Path(other.parts["vision"]) / "pytorch_model.bin")

    found = load(other).model.state_dict()

    assert len(left_over(own_cache / "converted")) == 2
    (name,) = [name for name in found if name.endswith("pre_layrnorm.bias")]
    assert torch.equal(found[name], weights["vision_model.pre_layrnorm.bias"])


def test_a_run_is_identified_by_the_original_files(original: Original, tmp_path: Path) -> None:
    def described() -> models.Description:
        return models.describe("shikra", parts=original.parts, device="cpu")

    before = described()
    load(original)

    assert described() == before
    assert before == models.describe(
        "shikra", parts=original.parts, device="cpu", converted=str(tmp_path / "elsewhere")
    )
    assert "cache" not in before.checkpoint


def test_a_chosen_folder_is_made_reused_and_never_overwritten(
    original: Original, tmp_path: Path
) -> None:
    chosen = tmp_path / "deep/er/shikra"
    load(original, chosen)
    made = contents(chosen)
    load(original, chosen)
    assert contents(chosen) == made
    assert not (tmp_path / "cache/converted").exists()

    other = write_original("llava-1.5", tmp_path / "llava")
    for name in ("notes.txt", "config.json"):
        mine = tmp_path / name.partition(".")[0]
        mine.mkdir()
        (mine / name).write_text("mine")
        with pytest.raises(models.ModelError, match=r"contains something other .* not overwritten"):
            load(original, mine)
        assert contents(mine) == {name: b"mine"}
    file = tmp_path / "file"
    file.write_text("mine")
    for target in (chosen, file):
        with pytest.raises(models.ModelError, match="contains something other"):
            load(other, target)
    assert contents(chosen) == made
    (tmp_path / "empty").mkdir()
    assert load(other, tmp_path / "empty").num_image_tokens


def test_a_folder_in_transformers_format_is_not_converted(tmp_path: Path) -> None:
    with pytest.raises(models.ModelError, match="is in transformers' format already; leave it out"):
        models.load("tiny-llava", device="cpu", converted=str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_shards_are_small_and_hold_every_tensor_once(
    original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"
    load(original, whole)
    monkeypatch.setattr(convert, "SHARD_BYTES", 100_000)
    load(original, sharded)

    expected = load_file(whole / "model.safetensors")
    files = sorted(sharded.glob("*.safetensors"))
    tensors = [load_file(file) for file in files]
    assert len(files) > 5
    for held in tensors:
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= 100_000
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    homes = {name: file.name for file, held in zip(files, tensors, strict=True) for name in held}
    assert index["weight_map"] == homes
    assert sum(map(len, tensors)) == len(expected)
    for held in tensors:
        for name, tensor in held.items():
            assert torch.equal(tensor, expected[name])


PROGRAM = """
import json, os, signal, sys
import models
from models.checkpoints import convert
{before}
try:
    models.load("shikra", parts=json.loads(sys.argv[1]), device="cpu", converted=sys.argv[2])
except models.ModelError as error:
    sys.exit(f"error: {{error}}")
"""


def start(original: Original, target: Path, before: str = "") -> subprocess.Popen[str]:
    arguments = [json.dumps(original.parts), str(target)]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(before=before), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.getenv('PYTHONPATH', '')}"},
        stderr=subprocess.PIPE,
        text=True,
    )


KILL_AT_THE_THIRD_SHARD = """
convert.SHARD_BYTES = 50_000
save, saved = convert.save_file, []
def save_or_die(*arguments, **options):
    if len(saved) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    saved.append(save(*arguments, **options))
convert.save_file = save_or_die
"""


def test_a_process_that_is_killed_midway_leaves_nothing_that_loads(
    original: Original, tmp_path: Path
) -> None:
    target = tmp_path / "made/shikra"
    process = start(original, target, KILL_AT_THE_THIRD_SHARD)
    process.communicate()

    assert process.returncode == -signal.SIGKILL
    assert left_over(target.parent) == [".shikra.partial"]
    assert len(list((target.parent / ".shikra.partial").glob("*.safetensors"))) == 2
    with pytest.raises(models.ModelError):
        models.load("shikra", checkpoint=str(target.parent / ".shikra.partial"), device="cpu")
    load(original, target)
    assert os.listdir(target.parent) == ["shikra"]
    assert not list(target.glob(".*"))
    assert len(list(target.glob("*.safetensors"))) == 1  # none of those of smaller shards


def test_two_processes_at_once_both_end_well_and_one_converts(
    original: Original, tmp_path: Path
) -> None:
    target = tmp_path / "made/shikra"
    slow = "import time; write = convert._write_weights\n"
    slow += "convert._write_weights = lambda *a: (time.sleep(3), write(*a))"
    processes = [start(original, target, slow) for _ in range(2)]
    messages = [process.communicate()[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], messages
    assert sum(text.count("converting the original files") for text in messages) == 1
    assert os.listdir(target.parent) == ["shikra"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_a_user_has_in_the_place_of_an_unfinished_folder_is_kept(
    original: Original, tmp_path: Path, kind: str
) -> None:
    mine, held = tmp_path / ".shikra.partial", tmp_path / "held"
    held.mkdir()
    (held / "notes.txt").write_text("mine")
    if kind == "folder":
        held.rename(mine)
    elif kind == "file":
        mine.write_text("mine")
    else:
        mine.symlink_to(held)

    with pytest.raises(
        models.ModelError, match=r"\.shikra\.partial blocks the conversion"
    ) as error:
        load(original, tmp_path / "shikra")

    assert "--" not in str(error.value)
    assert mine.read_text() == "mine" if kind == "file" else (mine / "notes.txt").exists()
    assert not (tmp_path / ".shikra.lock").exists()


@pytest.mark.parametrize("content", [[], [convert.MARKER], [convert.MARKER, "x"], [convert.RECORD]])
def test_what_a_killed_conversion_left_is_removed_at_any_step(
    original: Original, tmp_path: Path, content: list[str]
) -> None:
    (tmp_path / ".shikra.partial").mkdir()
    for name in content:
        (tmp_path / ".shikra.partial" / name).touch()

    load(original, tmp_path / "shikra")

    assert not (tmp_path / ".shikra.partial").exists()
    assert not (tmp_path / "shikra/x").exists()


def test_the_marker_of_an_unfinished_folder_is_written_first_and_removed_last(
    original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = []

    def stop(_: object, folder: Path) -> None:
        first.extend(os.listdir(folder))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "_write_weights", stop)
    with pytest.raises(models.ModelError, match="No space left"):
        load(original, tmp_path / "made/shikra")
    assert first == [convert.MARKER]
    assert os.listdir(tmp_path / "made") == []

    seen = []
    monkeypatch.setattr(convert.shutil, "rmtree", lambda path, **_: seen.extend(os.listdir(path)))
    part = tmp_path / "part"
    part.mkdir()
    for name in ("a.safetensors", convert.MARKER, "b.json"):
        (part / name).touch()
    convert._remove(part)
    assert seen == [convert.MARKER]


def test_a_disk_that_fills_up_is_one_sentence(original: Original, tmp_path: Path) -> None:
    target = tmp_path / "made/shikra"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
    process = start(original, target, limit)
    _, messages = process.communicate()

    (line,) = [line for line in messages.splitlines() if line.startswith("error: ")]
    assert process.returncode == 1
    assert "original files can't be converted to" in line
    assert "name another folder" in line
    assert "Traceback" not in messages
    assert left_over(target.parent) == []


def test_too_little_room_is_said_before_anything_is_written(
    original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(models.ModelError, match=r"needs \S+ GB, but \S+ GB are free there"):
        load(original, tmp_path / "made/shikra")
    assert left_over(tmp_path / "made") == []


def test_a_place_that_can_t_be_written_is_one_sentence(
    original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        models.ModelError, match=r"can't be converted to .*name another folder"
    ) as error:
        load(original, tmp_path / "file/shikra")
    assert "\n" not in str(error.value)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(models.ModelError, match="Permission denied"):
        load(original, tmp_path / "read-only/shikra")


def test_the_tokenizer_and_the_papers_names_are_in_the_folder(
    original: Original, tmp_path: Path
) -> None:
    """Names that transformers 4.57 to 5 read; those of memory differ between them."""
    load(original, tmp_path / "made")
    with safe_open(tmp_path / "made/model.safetensors", "pt") as file:
        names = set(file.keys())

    assert "language_model.lm_head.weight" in names
    assert "language_model.model.layers.2.mlp.up_proj.weight" in names
    assert "vision_tower.vision_model.embeddings.class_embedding" in names
    assert "multi_modal_projector.weight" in names
    llm = Path(original.parts["llm"])
    assert (tmp_path / "made/tokenizer.model").read_bytes() == (
        llm / "tokenizer.model"
    ).read_bytes()


def test_transformers_reads_the_ids_of_the_papers_tokenizer_from_the_folder(
    original: Original, tmp_path: Path
) -> None:
    load(original, tmp_path / "made")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    pieces = SentencePieceTokenizer(Path(original.parts["llm"]) / "tokenizer.model")

    assert [tokenizer.bos_token_id, *pieces.encode("  Is there a cat?")] == tokenizer.encode(
        "  Is there a cat?"
    )
    assert tokenizer.convert_tokens_to_ids("<im_end>") == pieces.get_piece_size() + 2


def test_a_change_of_the_maps_changes_the_folders_name() -> None:
    """If this fails, raise MAPS_VERSION, so that folders of the old maps are not taken."""
    rules = [
        (family, part, rule.source, saved_name(rule.target), rule.qkv_slot)
        for family, layout in LAYOUTS.items()
        for part, part_rules in layout.items()
        for rule in part_rules.rules
    ]
    digest = hashlib.sha256(json.dumps(rules).encode()).hexdigest()[:16]

    assert (convert.MAPS_VERSION, digest) == (1, "ef5136714938e25c")


def test_a_wrong_original_leaves_nothing(original: Original, tmp_path: Path) -> None:
    weights = torch.load(Path(original.parts["vision"]) / "pytorch_model.bin")
    del weights["vision_model.pre_layrnorm.weight"]
    torch.save(weights, Path(original.parts["vision"]) / "pytorch_model.bin")

    with pytest.raises(models.ModelError, match=r"lacks vision_model.pre_layrnorm.weight of the"):
        load(original, tmp_path / "made/shikra")
    assert left_over(tmp_path / "made") == []


@pytest.mark.parametrize("change", ["weights", "config", "removed", "same size and time"])
def test_a_converted_folder_that_was_edited_is_refused(
    original: Original, tmp_path: Path, change: str
) -> None:
    target = tmp_path / "made"
    options = {"parts": original.parts, "device": "cpu", "converted": str(target)}
    models.load(original.family, **options)  # type: ignore[arg-type]
    assert models.load(original.family, **options).num_image_tokens  # type: ignore[arg-type]
    file = target / ("config.json" if change == "config" else "model.safetensors")
    state, content = file.stat(), file.read_bytes()
    if change == "removed":
        file.unlink()
    else:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))

    with pytest.raises(models.ModelError, match=rf"{file.name} was changed or removed .*delete"):
        models.load(original.family, **options)  # type: ignore[arg-type]


def test_a_folder_that_an_older_version_converted_is_used(
    original: Original, tmp_path: Path
) -> None:
    """It has no hashes of its files."""
    target = tmp_path / "made"
    options = {"parts": original.parts, "device": "cpu", "converted": str(target)}
    models.load(original.family, **options)  # type: ignore[arg-type]
    record = json.loads((target / "converted_from.json").read_text())
    assert {"config.json", "model.safetensors"} <= record.pop("files").keys()
    (target / "converted_from.json").write_text(json.dumps(record))

    assert models.load(original.family, **options).num_image_tokens  # type: ignore[arg-type]
