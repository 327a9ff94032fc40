"""Swapping the modeling file in and out of a transformers install, of which a fake one will do."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomllib
import transformers
from transformers.utils import import_utils

from eah import modeling_llama_eah as drop_in
from eah import swap
from eah.swap import SwapError, find, install, main, restore, status

ROOT = Path(__file__).resolve().parents[2]
LLAMA = '''"""LLaMA."""
from torch import nn
class LlamaAttention(nn.Module):
    def forward(self, x):
        return nn.functional.softmax(x, -1)
class LlamaDecoderLayer(nn.Module):
    def __init__(self):
        self.self_attn = LlamaAttention()
class LlamaPreTrainedModel(nn.Module): ...
class LlamaModel(LlamaPreTrainedModel): ...
__all__ = ["LlamaModel", "LlamaPreTrainedModel"]
'''
FAMILIES = {
    "llama": LLAMA,
    "qwen2": LLAMA.replace("Llama", "Qwen2"),
    "twofold": LLAMA + "class LlamaVisionModel(nn.Module): ...\n",
    "linear": LLAMA.replace("softmax", "relu"),
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with a transformers 4.99.0 as pip leaves it."""
    package = tmp_path / "site-packages/transformers"
    rows = []
    for family, text in FAMILIES.items():
        path = package / "models" / family / f"modeling_{family}.py"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
        name = path.relative_to(package.parent).as_posix()
        rows.append(f"{name},sha256={digest.rstrip('=')},{len(text)}")
    (package / "__init__.py").write_text("")
    info = package.parent / "transformers-4.99.0.dist-info"
    info.mkdir()
    (info / "RECORD").write_text("\n".join(rows) + "\ntransformers-4.99.0.dist-info/RECORD,,\n")
    return package.parent


@pytest.fixture
def place(site: Path) -> swap.Place:
    return find(family="llama", site_packages=site)


def files(place: swap.Place) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.file.parent.iterdir())}


def works(place: swap.Place) -> bool:
    """Tell whether the file is whole: the original's, or ours with the original beside it."""
    content = place.file.read_bytes()
    if content == LLAMA.encode():
        return True
    return content == swap.SOURCE.read_bytes() and place.original.read_bytes() == LLAMA.encode()


def test_install_keeps_the_original_and_restore_gives_it_back(place: swap.Place) -> None:
    before = files(place)
    assert status(place).kind == "original"

    install(place)

    assert place.file.read_bytes() == swap.SOURCE.read_bytes()
    assert place.original.read_bytes() == LLAMA.encode()
    digest = hashlib.sha256(LLAMA.encode()).hexdigest()
    assert place.checksum.read_text() == f"{digest}  modeling_llama_original.py\n"
    assert status(place) == swap.Status("ours", drop_in.VERSION, current=True)
    restore(place)
    assert files(place) == before
    assert "already" in restore(place)


def test_installing_twice_changes_nothing(place: swap.Place) -> None:
    install(place)
    before = {path: path.stat().st_mtime_ns for path in place.file.parent.iterdir()}

    assert "already" in install(place)

    assert {path: path.stat().st_mtime_ns for path in place.file.parent.iterdir()} == before


def test_another_version_of_ours_is_replaced_and_the_original_kept(place: swap.Place) -> None:
    install(place)
    older = swap.SOURCE.read_text().replace(
        f'VERSION: Final = "{drop_in.VERSION}"', 'VERSION: Final = "0.0.9"'
    )
    place.file.write_text(older)
    assert status(place) == swap.Status("ours", "0.0.9", current=False)

    install(place)

    assert status(place).current
    assert place.original.read_bytes() == LLAMA.encode()


def test_something_else_is_kept_only_if_forced(place: swap.Place) -> None:
    mine = LLAMA + "# mine\n"
    place.file.write_text(mine)
    assert status(place).kind == "other"

    with pytest.raises(SwapError, match=r"neither transformers' own nor EAH's; pass --force"):
        install(place)
    assert place.file.read_text() == mine
    install(place, force=True)
    assert place.original.read_text() == mine
    restore(place)
    assert place.file.read_text() == mine


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("function", ["fsync", "replace", "unlink"])
@pytest.mark.parametrize("action", [install, restore])
def test_a_crash_at_any_point_leaves_a_working_file(
    place: swap.Place,
    action: Callable[[swap.Place], str],
    function: str,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target: Any = os if function == "fsync" else Path
    original = getattr(target, function)
    for crash_at in range(6):
        if action is restore:
            install(place)
        calls = 0

        def crash(*args: Any, at: int = crash_at, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at + 1:
                raise error
            return original(*args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(target, function, crash)
            try:
                action(place)
            except (SwapError, KeyboardInterrupt, OSError):
                assert calls == crash_at + 1
        assert works(place)
        action(place)
        assert works(place)
        restore(place)
        assert place.file.read_bytes() == LLAMA.encode()
        leftover = set(files(place)) - {"modeling_llama.py"}
        assert all(name.startswith(".") for name in leftover)
        for name in leftover:
            original_unlink = place.file.with_name(name)
            original_unlink.unlink()


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_original_is_not_restored(place: swap.Place, damage: str) -> None:
    install(place)
    if damage == "gone":
        place.original.unlink()
    else:
        place.original.write_text(LLAMA + " ")

    with pytest.raises(SwapError, match=r"reinstall transformers 4\.99\.0"):
        restore(place)
    assert place.file.read_bytes() == swap.SOURCE.read_bytes()


def test_other_families_get_their_own_names(site: Path) -> None:
    llama, qwen2 = (find(family=name, site_packages=site) for name in ("llama", "qwen2"))
    install(llama)
    install(qwen2)

    text = qwen2.file.read_text()
    assert "class Qwen2Model(" in text
    assert "class LlamaModel(" not in text
    assert status(qwen2).current
    restore(llama)
    assert status(qwen2).kind == "ours"
    restore(qwen2)
    assert qwen2.file.read_text() == FAMILIES["qwen2"]


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("twofold", "defines 2 models (LlamaModel, LlamaVisionModel)"),
        ("linear", "uses neither softmax nor scaled_dot_product_attention"),
        ("absent", "transformers 4.99.0 has no model family 'absent'"),
    ],
)
def test_families_that_cannot_be_supported_say_so(site: Path, family: str, message: str) -> None:
    with pytest.raises(SwapError, match=re.escape(message)):
        install(find(family=family, site_packages=site))


def test_installs_that_cannot_be_swapped_say_so(site: Path, tmp_path: Path) -> None:
    archive = tmp_path / "packages.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("transformers/__init__.py", "")
    with pytest.raises(SwapError, match="it is in a zip file; unpack it"):
        find(family="llama", site_packages=archive)
    with pytest.raises(SwapError, match="there is no such folder"):
        find(family="llama", site_packages=tmp_path / "absent")
    with pytest.raises(SwapError, match="can't be run"):
        find(family="llama", python=tmp_path / "absent/python")
    (site / "transformers-4.99.0.dist-info/RECORD").unlink()
    with pytest.raises(SwapError, match=r"is a checkout \(editable\)"):
        find(family="llama", site_packages=site)


def test_a_folder_that_cannot_be_written_says_so(
    place: swap.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)

    with pytest.raises(SwapError, match=r"can't be written \(Permission denied\); run this as"):
        install(place)


def test_another_interpreters_install_is_found(site: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)

    assert find(family="llama", python=python).package == site / "transformers"


def test_the_command_shows_what_is_there(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--site-packages", str(site)]
    assert main(["status", *flags]) == 0
    assert "modeling_llama.py is transformers' own" in capsys.readouterr().out
    monkeypatch.setenv("EAH_LAYERS", "2")
    assert main(["install", *flags]) == 0
    printed = capsys.readouterr().out
    assert f"transformers 4.99.0: {site}" in printed
    assert f"is EAH {drop_in.VERSION}" in printed
    assert "settings here: layers 2; densest head; threshold 0.002" in printed
    monkeypatch.setenv("EAH_LAYERS", "two")
    assert main(["status", *flags]) == 2
    assert "eah: error: EAH_LAYERS='two' can't be used" in capsys.readouterr().err
    monkeypatch.delenv("EAH_LAYERS")
    assert main(["restore", *flags]) == 0
    assert main(["status", "--model", "absent", *flags]) == 2


def test_it_runs_as_a_module_and_as_a_command(site: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eah.swap", "status", "--site-packages", str(site)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "is transformers' own" in done.stdout
    assert done.stderr == ""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"eah": "eah.swap:main"}


def test_importing_the_package_needs_neither_torch_nor_transformers() -> None:
    code = "import sys, eah; print(sorted({'torch', 'transformers'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=True)  # fmt: skip

    assert done.stdout.strip() == "[]"


# How transformers finds names in files ----------------------------------------------------------


def real_names() -> list[str]:
    path = Path(transformers.__file__).parent / "models/llama/modeling_llama.py"
    return swap.exported_names(path.read_text(encoding="utf-8"))


def test_the_names_in_our_file_are_llamas() -> None:
    assert swap.lazy_exports(real_names()) == drop_in.LAZY_EXPORTS


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("beside", [[], ["albert", "mistral", "zamba"]])
def test_no_name_is_looked_up_in_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool, beside: list[str]
) -> None:
    """Follows `_LazyModule`: groups of requirements in order, a later file's name wins."""
    models = Path(transformers.__file__).parent / "models"
    folder = tmp_path / "models"
    for family in ("llama", *beside):
        (folder / family).mkdir(parents=True)
        for path in (models / family).glob("*.py"):
            (folder / family / path.name).write_bytes(path.read_bytes())
    original = folder / "llama/modeling_llama.py"
    original.rename(original.with_name("modeling_llama_original.py"))
    original.write_bytes(swap.SOURCE.read_bytes())
    listdir, scandir = os.listdir, os.scandir

    class Entries(list):  # type: ignore[type-arg]
        def __enter__(self) -> Entries:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), reverse=backwards))
    monkeypatch.setattr(
        os,
        "scandir",
        lambda path: Entries(sorted(scandir(path), key=lambda e: e.name, reverse=backwards)),
    )
    start = folder if beside else folder / "llama"

    found: dict[str, str] = {}
    nested = import_utils.create_import_structure_from_path(str(start))
    for modules in import_utils.spread_import_structure(nested).values():
        for module, names in modules.items():
            found |= dict.fromkeys(names, module)

    assert {found[name].rpartition(".")[2] for name in real_names()} == {"modeling_llama"}
