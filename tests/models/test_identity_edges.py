"""A checkpoint's identity follows its bytes through links, replacements and restored times."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

import models
from models import file_hashes
from models.sources import find_source

TINY = models.settings.ROOT / "models/tiny-llava"
INDEX = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash files long after they were written, so that hashes are kept."""
    monkeypatch.setattr(file_hashes, "time", SimpleNamespace(time_ns=lambda: 1 << 62))


def identity(folder: Path) -> str:
    return find_source(str(folder), what="checkpoint", advice="").identity


def flipped(content: bytes) -> bytes:
    """Return as many bytes, one of them another one."""
    return content[:-1] + bytes([content[-1] ^ 1])


def write_in_place(path: Path) -> None:
    """Change a byte without a new file, and set its times again."""
    state = path.stat()
    path.write_bytes(flipped(path.read_bytes()))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def replace(path: Path) -> None:
    """Put another file of the same size and times in a file's place; links go on to name it."""
    state, new = path.stat(), path.with_name(f"{path.name}.new")
    new.write_bytes(flipped(path.read_bytes()))
    os.utime(new, ns=(state.st_atime_ns, state.st_mtime_ns))
    new.replace(path)


def sharded(folder: Path) -> list[Path]:
    """Write tiny-llava in two shards; return them."""
    shutil.copytree(TINY, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    homes = {name: f"model-{at % 2}.safetensors" for at, name in enumerate(sorted(tensors))}
    for file in set(homes.values()):
        part = {name: tensor for name, tensor in tensors.items() if homes[name] == file}
        save_file(part, folder / file, {"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": homes}))
    return sorted(folder.glob("model-?.safetensors"))


def link_shards(root: Path) -> tuple[Path, Path]:
    """A folder whose shards are links into another one."""
    folder, store = root / "model", root / "store"
    store.mkdir()
    shards = sharded(folder)
    for shard in shards:
        shard.rename(store / shard.name)
        shard.symlink_to(store / shard.name)
    return folder, store / shards[1].name


def link_twice(root: Path) -> tuple[Path, Path]:
    """A shard that is a link to a link, the first of them relative."""
    folder, file = link_shards(root)
    second = root / "second"
    second.symlink_to(file)
    shard = folder / file.name
    shard.unlink()
    shard.symlink_to("../second")
    return folder, file


def link_folder(root: Path) -> tuple[Path, Path]:
    """A folder that is a link to another one."""
    shards = sharded(root / "real")
    (root / "model").symlink_to(root / "real")
    return root / "model", shards[0]


def hub_cache(root: Path) -> tuple[Path, Path]:
    """A folder of the hub's cache: `snapshots/COMMIT` with links into `blobs`."""
    repository = root / "models--owner--name"
    snapshot, blobs = repository / "snapshots/abc", repository / "blobs"
    blobs.mkdir(parents=True)
    shards = sharded(snapshot)
    for file in sorted(snapshot.iterdir()):
        file.rename(blobs / f"hash-{file.name}")
        file.symlink_to(f"../../blobs/hash-{file.name}")
    return snapshot, blobs / f"hash-{shards[0].name}"


def hard_link(root: Path) -> tuple[Path, Path]:
    """A shard that has another name elsewhere, too."""
    shards = sharded(root / "model")
    os.link(shards[0], root / "elsewhere")
    return root / "model", root / "elsewhere"


def plain(name: str) -> Callable[[Path], tuple[Path, Path]]:
    def make(root: Path) -> tuple[Path, Path]:
        shutil.copytree(TINY, root / "model")
        (root / "model/chat_template.jinja").write_text("{{ messages }}")
        return root / "model", root / "model" / name

    return make


LAYOUTS = {
    "linked shards": link_shards,
    "links to links": link_twice,
    "linked folder": link_folder,
    "hub cache": hub_cache,
    "hard link": hard_link,
    "one file": plain("model.safetensors"),
    "tokenizer": plain("tokenizer.model"),
    "fast tokenizer": plain("tokenizer.json"),
    "template": plain("chat_template.jinja"),
    "generation config": plain("generation_config.json"),
}


@pytest.mark.parametrize("change", [write_in_place, replace])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_change_behind_any_name_is_noticed(
    tmp_path: Path, name: str, change: Callable[[Path], None]
) -> None:
    folder, file = LAYOUTS[name](tmp_path)
    before = identity(folder)
    assert identity(folder) == before
    size, time_ns = file.stat().st_size, file.stat().st_mtime_ns

    change(file)

    assert (file.stat().st_size, file.stat().st_mtime_ns) == (size, time_ns)
    if name == "hard link" and change is replace:
        assert identity(folder) == before  # the other name has a file of its own now
    else:
        assert identity(folder) != before


def test_a_link_that_is_turned_to_another_file_is_noticed(tmp_path: Path) -> None:
    folder, file = link_shards(tmp_path)
    before = identity(folder)
    other = file.with_name("other")
    shutil.copy2(file, other)
    shard = folder / file.name
    shard.unlink()
    shard.symlink_to(other)
    assert identity(folder) == before  # the same bytes
    write_in_place(other)
    assert identity(folder) != before


def test_the_same_bytes_are_the_same_weights_wherever_they_lie(tmp_path: Path) -> None:
    for name in ("linked shards", "linked folder", "hub cache"):
        (tmp_path / name).mkdir()
    found = {
        identity(LAYOUTS[name](tmp_path / name)[0])
        for name in ("linked shards", "linked folder", "hub cache")
    }
    assert len(found) == 1


def test_a_file_that_disappears_while_it_is_hashed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = link_shards(tmp_path)

    def vanish(paths: object) -> dict[Path, str]:
        file.unlink()
        return real(paths)  # type: ignore[arg-type]

    real = file_hashes.file_hashes
    monkeypatch.setattr("models.sources.file_hashes", vanish)
    with pytest.raises(models.ModelError, match=rf"{file.name} can't be read .*or changed while"):
        identity(folder)
