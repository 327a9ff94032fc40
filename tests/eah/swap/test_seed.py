"""The commands of the paper's README: a vendored checkout, `pip install -e`, overwrite, run.

They overwrite the original. One command gets it back, and the run has EAH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest
import transformers

from eah import swap
from eah.swap import repair
from tests.eah.swap.installs import git, ours, write_wheel

INSTALLED = Path(transformers.__file__).parent
LLAMA = Path("transformers/models/llama/modeling_llama.py")
ORIGINAL = (INSTALLED.parent / LLAMA).read_bytes()
RUN = """
from transformers import LlamaConfig, LlamaForCausalLM
model = LlamaForCausalLM(LlamaConfig(
    hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=8,
))
print([type(layer.self_attn).__name__ for layer in model.model.layers])
"""


def link_children(source: Path, target: Path, *, without: str) -> None:
    target.mkdir(parents=True)
    for child in source.iterdir():
        if child.name not in (without, "__pycache__"):
            (target / child.name).symlink_to(child)


@pytest.fixture
def vendored(tmp_path: Path) -> Path:
    """Return a tree like transformers-4.29.2/: links to the installed one, a copy of llama's."""
    root = tmp_path / "OPERA" / f"transformers-{transformers.__version__}"
    package = root / "src" / "transformers"
    link_children(INSTALLED, package, without="models")
    link_children(INSTALLED / "models", package / "models", without="llama")
    shutil.copytree(
        INSTALLED / "models" / "llama", package / "models" / "llama",
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip
    return root


@pytest.fixture
def python(vendored: Path, tmp_path: Path) -> Path:
    """Return an environment with this one's packages and the tree, as after `pip install -e`."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    (packages,) = environment.glob("lib/python*/site-packages")
    paths = [vendored / "src", INSTALLED.parent]
    (packages / "__editable__.transformers.pth").write_text("".join(f"{path}\n" for path in paths))
    return environment / "bin" / "python"


def answers(python: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python, "-c", RUN], capture_output=True, text=True, env=environment, cwd=python.parent
    )


@pytest.mark.slow
@pytest.mark.parametrize("source", ["git", "wheel"])
def test_the_commands_end_in_a_working_file_after_one_more(
    vendored: Path, python: Path, tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = vendored / "src" / LLAMA
    if source == "git":
        git(vendored.parent, "init", "--quiet")
        git(vendored.parent, "add", str(file), str(file.parents[2] / "__init__.py"))
        git(vendored.parent, "commit", "--quiet", "-m", "vendored")
    wheel = write_wheel(tmp_path, {LLAMA.as_posix(): ORIGINAL}, version=transformers.__version__)
    if source == "wheel":
        monkeypatch.setattr(
            repair, "_download", lambda command, folder: str(shutil.copy(wheel, folder))[:0]
        )
    shutil.copy(swap.SOURCE, file)
    if source == "git":
        failed = answers(python)
        assert failed.returncode == 1
        assert "modeling_llama_original.py" in failed.stderr

    assert swap.main(["install", "--file", str(file)]) == 0

    done = answers(python)
    assert done.stdout == "['LlamaAttention', 'EAHLlamaAttention']\n", done.stderr
    assert swap.main(["status", "--python", str(python)]) == 0
    assert swap.main(["restore", "--python", str(python)]) == 0
    assert file.read_bytes() == ORIGINAL


@pytest.mark.parametrize("named", ["", "src", "src/transformers"])
def test_a_vendored_tree_is_named_by_any_of_its_folders(
    vendored: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(vendored.parent)
    folder = Path(vendored.name) / named

    place = swap.find(family="llama", site_packages=folder)

    assert place.file == vendored / "src" / LLAMA
    assert place.version == transformers.__version__


def test_an_editable_install_is_found_without_the_callers_path(
    vendored: Path, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    other = tmp_path / "other" / "transformers"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(other.parent))
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))

    assert swap.main(["status", "--python", str(python)]) == 0

    assert f": {vendored}/src/{LLAMA} is transformers' own" in capsys.readouterr().out


def test_a_real_copy_of_the_folder_is_swapped_and_comes_back(vendored: Path) -> None:
    folder = (vendored / "src" / LLAMA).parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    given = ["--site-packages", str(vendored)]

    assert swap.main(["install", *given]) == 0
    assert (folder / "modeling_llama.py").read_bytes() == ours()
    assert swap.main(["status", *given]) == 0
    assert swap.main(["restore", *given]) == 0

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
