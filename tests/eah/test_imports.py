"""Who may import whom: scripts -> eval -> models -> eah -> torch and transformers."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import eah

ROOT = Path(__file__).resolve().parents[2]
ORDER = ("scripts", "eval", "models", "eah")
# What the drop-in file is generated from, besides its own part.
ARITHMETIC = {
    f"eah.{name}" for name in ("errors", "settings", "visibility", "prompt", "blocks", "method")
}
FILES = [
    path.relative_to(ROOT).as_posix()
    for folder in ORDER
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def imports(file: str) -> Iterator[str]:
    """Yield the top-level package of every import of a file, also of those inside functions."""
    path = ROOT / file
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), file)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            own = Path(file).parts[0]
            yield own if node.level else (node.module or "").partition(".")[0]


def modules_of_eah(file: str) -> set[str]:
    """Return the modules of the package that a file imports from, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"), file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "eah":
            found |= {f"eah.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name for name in found if name.startswith("eah.")}


def files_of(folder: str) -> list[str]:
    return [file for file in FILES if file.startswith(f"{folder}/")]


def test_the_files_were_found() -> None:
    assert "eah/method.py" in FILES
    assert {"torch", "eah"} <= set(imports("eah/patch.py"))


@pytest.mark.parametrize("file", files_of("eah"))
def test_eah_imports_torch_transformers_and_the_standard_library(file: str) -> None:
    allowed = {"torch", "transformers", "eah", *sys.stdlib_module_names}
    if file in (
        "eah/triton_kernels.py",
        "eah/triton_head.py",
    ):  # imported where Triton is, which torch's CUDA builds bring
        allowed.add("triton")
    if file in ("eah/overlay.py", "eah/handle.py"):  # for types, and when a figure is drawn
        allowed |= {"numpy", "matplotlib", "PIL"}
    if file in ("eah/lmms/__init__.py", "eah/lmms/classes.py"):  # which lmms-eval imports
        allowed.add("lmms_eval")

    assert set(imports(file)) <= allowed


def test_matplotlib_is_loaded_when_a_figure_is_drawn() -> None:
    code = "import sys, eah.patch; print('matplotlib' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("file", ["method", "prompt", "blocks"])
def test_the_method_imports_torch_and_the_standard_library(file: str) -> None:
    allowed = {"torch", "eah", *sys.stdlib_module_names}

    assert set(imports(f"eah/{file}.py")) <= allowed
    assert modules_of_eah(f"eah/{file}.py") <= ARITHMETIC


@pytest.mark.parametrize("file", ["settings", "errors"])
def test_settings_import_the_standard_library_alone(file: str) -> None:
    assert set(imports(f"eah/{file}.py")) <= {"eah", *sys.stdlib_module_names}
    assert modules_of_eah(f"eah/{file}.py") <= {"eah.errors"}


def test_nothing_imports_the_generated_file() -> None:
    for file in FILES:
        assert "eah.modeling_llama_eah" not in modules_of_eah(file), file


@pytest.mark.parametrize("file", FILES)
def test_imports_point_from_scripts_down_to_eah(file: str) -> None:
    above = ORDER[: ORDER.index(Path(file).parts[0])]

    assert not set(imports(file)) & {*above, "tests"}


def test_importing_the_package_loads_nothing() -> None:
    """`python -m eah.swap` runs beside any transformers, or none."""
    code = "import sys, eah; print(sorted({'torch', 'transformers'} & set(sys.modules)))"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_help_of_the_swap_loads_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "eah.swap", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip

    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.stdout.startswith("usage: eah")
    assert "argparse" in imported
    assert not imported & {"torch", "transformers"}


def test_public_names_are_found_when_they_are_used() -> None:
    for name in eah.__all__:
        assert getattr(eah, name).__name__.removeprefix("eah.") == name
    with pytest.raises(AttributeError, match="module 'eah' has no attribute 'no_such_name'"):
        _ = eah.no_such_name
