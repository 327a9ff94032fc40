"""A repository's own copy of the modeling file, named by --file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eah import swap
from tests.eah.swap.installs import DECODER, error_of, git, ours, tree

ROOT = Path(swap.SOURCE).parents[1]
# As Vision-CAIR/MiniGPT-4 and LALBJ/PAI have it.
BUILDS_ON = (
    "from transformers.models.llama.modeling_llama import LlamaForCausalLM as Original\n\n\n"
    "class LlamaForCausalLM(Original):\n    pass\n"
)
# As shikiw/OPERA has it, for a model of two layers.
MODEL = """import torch
from torch import nn


class LlamaAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = None

    def forward(self, hidden_states):
        return nn.functional.softmax(hidden_states, dim=-1)


class LlamaDecoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = LlamaAttention()


class LlamaPreTrainedModel(nn.Module):
    pass


class LlamaModel(LlamaPreTrainedModel):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([LlamaDecoderLayer() for _ in range(2)])

    def forward(self, hidden_states):
        return hidden_states
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy in a repository."""
    file = tmp_path / "opera" / "minigpt4" / "models" / "modeling_llama.py"
    file.parent.mkdir(parents=True)
    (file.parent / "__init__.py").touch()
    (file.parents[1] / "__init__.py").touch()
    file.write_text(MODEL)
    return file


def repository(copy: Path) -> Path:
    """Commit what a folder has."""
    root = copy.parents[2]
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "own copy")
    return root


def run(copy: Path, *arguments: str) -> int:
    return swap.main([*arguments, "--file", str(copy)])


@pytest.mark.parametrize("committed", [True, False])
def test_a_copy_is_swapped_and_restored(
    copy: Path, committed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if committed:
        repository(copy)
    before = tree(copy.parents[2])
    assert run(copy, "status") == 0
    said = "" if committed else ", by its content (nothing records it)"
    assert capsys.readouterr().out == f"own copy: {copy} is the repository's own{said}\n"

    assert run(copy, "install") == 0
    output = capsys.readouterr().out
    assert "every model that this repository builds with it is affected" in output
    assert "python -m eah.swap check FOLDER" in output.splitlines()[-1]
    assert run(copy, "status") == 0
    assert run(copy, "restore") == 0

    assert tree(copy.parents[2]) == before


def test_ours_acts_in_a_copy(copy: Path) -> None:
    """It does not in its own package, and looks like any module under other names."""
    assert run(copy, "install") == 0
    code = (
        "from minigpt4.models import modeling_llama as m; model = m.LlamaModel(); "
        "print([type(layer.self_attn).__name__ for layer in model.layers], m.__file__)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy.parents[2], capture_output=True, text=True,
        check=True,
    )  # fmt: skip

    kept = copy.with_name("modeling_llama_original.py")
    assert done.stdout == f"['LlamaAttention', 'EAHLlamaAttention'] {kept}\n"


def test_ours_does_not_act_in_its_own_package() -> None:
    text = swap.drop_in_for(swap.Place("llama", Path("modeling_llama.py")))
    code = compile(text, "modeling_llama_eah.py", "exec")

    names = {"__name__": "eah.modeling_llama_eah", "__file__": "modeling_llama_eah.py"}
    exec(code, names)

    assert "SharingAttention" in names


def test_an_overwritten_copy_comes_back_from_git(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository(copy)
    copy.write_bytes(ours())
    assert run(copy, "status") == 1
    assert "modeling_llama_original.py, is missing" in capsys.readouterr().out

    assert run(copy, "install") == 0

    assert f"getting the original from the last commit that has it (git, {copy})" in (
        capsys.readouterr().err
    )
    assert copy.with_name("modeling_llama_original.py").read_text() == MODEL
    assert run(copy, "status") == 0
    copy.write_bytes(ours())
    assert run(copy, "restore") == 0
    assert copy.read_text() == MODEL


@pytest.mark.parametrize("action", ["install", "restore"])
def test_an_overwritten_copy_without_git_is_one_sentence(
    copy: Path, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy.write_bytes(ours())
    before = tree(copy.parent)

    assert run(copy, action) == 2

    assert error_of(capsys).endswith(
        "is in no git history that could be asked; put the repository's own file there as "
        f"{copy.with_name('modeling_llama_original.py')}"
    )
    assert tree(copy.parent) == before


@pytest.mark.parametrize("committed", [True, False])
def test_a_copy_that_builds_on_transformers_names_that_one(
    copy: Path, committed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    copy.write_text(BUILDS_ON)
    if committed:
        repository(copy)

    advice = (
        "builds on the model of transformers and defines none; swap the file of that "
        "transformers: python -m eah.swap install --python PYTHON"
    )
    assert run(copy, "status") == (0 if committed else 1)
    assert (f"wrong: {copy} {advice}\n" in capsys.readouterr().out) != committed

    assert run(copy, "install", "--force") == 2

    assert error_of(capsys).endswith(advice)
    assert copy.read_text() == BUILDS_ON


@pytest.mark.parametrize("name", ["modeling_llama_original.py", "models", "config.json"])
def test_what_is_no_modeling_file_is_one_sentence(
    copy: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy.parent / "config.json").touch()
    (copy.parent / "models").mkdir()

    assert run(copy.parent / name, "status") == 2

    assert "name the modeling file itself" in error_of(capsys)


def test_a_copy_that_is_not_there_is_one_sentence(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(copy.with_name("modeling_camel.py"), "status") == 2

    assert "does not exist" in error_of(capsys)


def test_a_copy_has_any_name(copy: Path) -> None:
    """As SooLab/AllPath's `mods/new_modeling_llama.py`."""
    renamed = copy.with_name("new_modeling_llama.py")
    shutil.move(copy, renamed)

    assert run(renamed, "install") == 0
    assert renamed.with_name("new_modeling_llama_original.py").read_text() == MODEL
    assert run(renamed, "restore") == 0
    assert renamed.read_text() == MODEL


def test_a_relative_path_is_of_this_folder(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)

    assert swap.find(family="llama", file=Path(copy.name)).file == copy


def test_a_file_of_transformers_is_that_install(site: Path) -> None:
    file = site / "transformers" / "models" / "qwen2" / "modeling_qwen2.py"

    place = swap.find(family="llama", file=file)

    assert place == swap.find(family="qwen2", site_packages=site)


def test_a_file_that_looks_like_one_of_transformers_is_a_copy(tmp_path: Path) -> None:
    file = tmp_path / "mine" / "models" / "llama" / "modeling_llama.py"
    file.parent.mkdir(parents=True)
    file.write_text(DECODER.format(name="Llama"))
    (tmp_path / "mine" / "__init__.py").touch()

    assert swap.find(family="llama", file=file).package is None


def test_a_name_with_a_space_is_noted(copy: Path) -> None:
    spaced = copy.with_name("modeling llama.py")
    copy.rename(spaced)
    assert run(spaced, "install") == 0

    found = swap.status(swap.find(family="llama", file=spaced))

    assert (found.kept, found.note is not None) == ("sound", True)
    assert run(spaced, "restore") == 0
    assert spaced.read_text() == MODEL
