"""How transformers finds the names in our file."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.models.llama import modeling_llama
from transformers.utils import import_utils

from eah import modeling_llama_eah as drop_in
from eah import swap
from tests.eah.swap.installs import FAMILIES

REAL_MODELS = Path(transformers.__file__).parent / "models"
NAMES = sorted(modeling_llama.__all__)


def in_order(monkeypatch: pytest.MonkeyPatch, *, reverse: bool, last: str = "") -> None:
    """Make folders list their files by name, or the other way round; one of them last of all."""
    scan, names = os.scandir, os.listdir

    def key(name: str) -> tuple[bool, str]:
        return (name == last) != reverse, name

    class Scan(list[Any]):
        def __enter__(self) -> Scan:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr(os, "scandir", lambda path: Scan(
        sorted(scan(path), key=lambda entry: key(entry.name), reverse=reverse)))  # fmt: skip
    monkeypatch.setattr(os, "listdir", lambda path: sorted(names(path), key=key, reverse=reverse))


def homes(folder: Path) -> dict[str, str]:
    """Return the file of each name, as `_LazyModule` finds it."""
    import_utils.define_import_structure.cache_clear()
    structure = import_utils.define_import_structure(str(folder))
    spread = import_utils.spread_import_structure(
        import_utils.create_import_structure_from_path(str(folder))
    )
    assert list(structure.items()) == list(spread.items())
    lazy = import_utils._LazyModule("lazy", str(folder / "__init__.py"), structure)
    found = {}
    for modules in structure.values():
        for module, names in modules.items():
            found.update(dict.fromkeys(names, module))
    assert lazy._class_to_module == found
    return found


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of models in which llama's and qwen2's file are ours."""
    models = tmp_path / "models"
    for family in ("bert", "albert", "llama", "mistral", "qwen2"):
        shutil.copytree(REAL_MODELS / family, models / family,
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    (models / "__init__.py").touch()
    for family in ("llama", "qwen2"):
        file = models / family / f"modeling_{family}.py"
        if b"SharingAttention" not in file.read_bytes():
            place = swap.Place(family, file, tmp_path, "4.99.0")
            swap.install(place, force=True)
    return models


def test_the_names_in_our_file_are_those_of_transformers() -> None:
    assert len(NAMES) == 6
    assert swap.lazy_exports(NAMES) == drop_in.LAZY_EXPORTS


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_names_are_found_in_ours_whichever_file_comes_first(
    models: Path, family: str, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order(monkeypatch, reverse=reverse)
    original = (models / family / f"modeling_{family}_original.py").read_text()
    exported = re.findall(r'"(\w+)"', original.split("__all__ = ")[1])

    found = homes(models / family)

    assert len(exported) >= 6
    assert {found[name] for name in exported} == {f"modeling_{family}"}
    assert found[FAMILIES[family] + "Config"] == f"configuration_{family}"


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("last", ["llama", "qwen2", "albert"])
def test_names_are_found_in_ours_among_other_families(
    models: Path, last: str, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order(monkeypatch, reverse=reverse, last=last)
    listed = [name for name in os.listdir(models) if (models / name).is_dir()]
    assert listed.index(last) == len(listed) - 1

    found = homes(models)

    assert {found[name] for name in NAMES} == {"llama.modeling_llama"}
    assert found["Qwen2ForCausalLM"] == "qwen2.modeling_qwen2"
    assert found["MistralForCausalLM"] == "mistral.modeling_mistral"
    assert found["BertModel"] == "bert.modeling_bert"


@pytest.mark.parametrize("reverse", [False, True])
def test_without_the_names_in_our_file_the_order_of_the_files_decides(
    models: Path, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What LAZY_EXPORTS is for."""
    file = models / "llama" / "modeling_llama.py"
    file.write_text(file.read_text().replace(drop_in.LAZY_EXPORTS, ""))
    in_order(monkeypatch, reverse=reverse)

    assert homes(models / "llama")["LlamaModel"] == "modeling_llama_original"
