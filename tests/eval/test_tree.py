"""Rules of the house in eval/: who imports whom, how much there is, and what is not written."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = 187
LINES = 25_900
DEPTH = 8
LAYERS = ("eah", "models", "eval", "scripts")

# What a room of eval/ imports of the others; its top level holds the commands, which import all.
# A file in the place of a room is that file alone.
ALLOWED = {
    "errors": set(),
    "command": {"errors"},
    "files": {"errors"},
    "stats": {"errors", "files"},
    "run": {"errors", "files", "tasks/base"},
    "tasks": {
        "errors",
        "files",
        "stats",
        "run",
        "output/table",
        "output/page",
        "output/contrasts",
        "output/published",
    },
    "output": {"errors", "files", "stats", "run", "tasks/base"},
    "analysis": {"errors", "files", "stats", "run", "tasks", "tasks/base", "output"},
}
# tasks/base is what a run asks of a benchmark. It knows a run's settings and flags, and nothing
# that asks a model; so no two modules import each other, and run/session is the only one of run/
# that knows of tasks.
SHARED = {"tasks/base": {"errors", "files", "stats", "run"}}
USES_TASKS = {"eval.run.session"}
# In a function: the judge's pictures are described as chair_eval.py does, by one run of it.
LAZY = {"eval.tasks.judge.captions": {"eval.evaluate", "eval.output.run_report"}}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(*tops: str) -> dict[str, Path]:
    return {name_of(path): path for top in tops for path in sorted((ROOT / top).rglob("*.py"))}


def imports_of(tree: ast.Module, known: dict[str, Path], *, lazy: bool) -> set[str]:
    """Return which of the known modules a module imports, those for type checks excluded.

    Args:
        tree: The module.
        known: Modules by name.
        lazy: Count what functions import, too.
    """
    found = set()
    for node in _executed(tree.body, lazy=lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= below & known.keys()
            if not below <= known.keys():
                found.add(str(node.module))
    return found & known.keys()


def _executed(body: list[ast.stmt], *, lazy: bool) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not lazy:
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _executed(node.orelse, lazy=lazy)
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _executed(getattr(node, field, []), lazy=lazy)
        for handler in getattr(node, "handlers", []):
            yield from _executed(handler.body, lazy=lazy)


@cache
def graph(*, lazy: bool = False) -> dict[str, set[str]]:
    known = modules(*LAYERS)
    return {
        name: imports_of(ast.parse(path.read_text(encoding="utf-8")), known, lazy=lazy) - {name}
        for name, path in known.items()
    }


def longest_chain(edges: dict[str, set[str]]) -> list[str]:
    """Return the longest chain of imports.

    Raises:
        ValueError: If modules import each other in a circle.
    """
    chains: dict[str, list[str]] = {}

    def chain(name: str, above: tuple[str, ...]) -> list[str]:
        if name in above:
            raise ValueError(" -> ".join([*above[above.index(name) :], name]))
        if name not in chains:
            below = (chain(other, (*above, name)) for other in edges[name])
            chains[name] = [name, *max(below, key=len, default=[])]
        return chains[name]

    return max((chain(name, ()) for name in edges), key=len)


def inside_eval() -> dict[str, set[str]]:
    names = {name for name in graph() if name.startswith("eval")}
    return {name: graph()[name] & names for name in names}


def room(name: str) -> str:
    """Return where a module of eval/ lives: its room, or itself at the top and in SHARED."""
    _, *parts = name.split(".")
    path = "/".join(parts[:2])
    return path if path in SHARED else parts[0] if parts else ""


def test_imports_are_read_right() -> None:
    known = dict.fromkeys(["eval.a", "eval.b", "eval.c", "eval.d", "eval.e"], Path())
    tree = ast.parse(
        "import os, eval.a\nfrom eval import b\nfrom eval.c import name\n"
        "if TYPE_CHECKING:\n    import eval.d\n"
        "def function():\n    try:\n        import eval.e\n    finally:\n        pass\n"
    )

    assert imports_of(tree, known, lazy=False) == {"eval.a", "eval.b", "eval.c"}
    assert imports_of(tree, known, lazy=True) == {"eval.a", "eval.b", "eval.c", "eval.e"}


def test_chains_and_circles_are_found() -> None:
    edges = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"a"}}

    assert longest_chain(edges) == ["d", "a", "b", "c"]
    with pytest.raises(ValueError, match="a -> b -> c -> a"):
        longest_chain({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_no_modules_import_each_other_and_no_chain_is_long() -> None:
    chain = longest_chain(inside_eval())

    assert len(chain) <= DEPTH, " > ".join(chain)


def test_imports_go_from_scripts_to_eval_to_models_to_eah() -> None:
    wrong = {
        f"{name} imports {other}"
        for name, others in graph(lazy=True).items()
        for other in others
        if LAYERS.index(other.partition(".")[0]) > LAYERS.index(name.partition(".")[0])
    }

    assert wrong == set()


def test_rooms_import_what_lies_below_them() -> None:
    rules = {**ALLOWED, **SHARED}
    wrong = {
        f"{name} imports {other}"
        for name, others in graph(lazy=True).items()
        for other in others - LAZY.get(name, set())
        if name.startswith("eval.") and other.startswith("eval.") and room(name) in rules
        if room(other) != room(name)
        and not {room(other), "/".join(other.split(".")[1:])} & rules[room(name)]
        and not (room(name) == "tasks" and room(other) == "tasks/base")
    }

    assert wrong == set()
    users = {n for n, of in graph().items() if room(n) == "run" and "eval.tasks.base" in of}
    assert users <= USES_TASKS


def test_only_commands_import_commands() -> None:
    commands = {n for n in inside_eval() if n.count(".") == 1 and room(n) not in ALLOWED}
    users = {
        name
        for name, others in graph(lazy=True).items()
        if name.startswith("eval") and others & commands - LAZY.get(name, set())
    }

    assert "eval.pope_eval" in commands
    assert users <= commands


def test_benchmarks_know_each_other_where_one_is_made_of_the_other_alone() -> None:
    def benchmark(name: str) -> str:
        return name.split(".")[2]

    pairs = {
        (benchmark(name), benchmark(other))
        for name, others in graph(lazy=True).items()
        for other in others
        if name.startswith("eval.tasks.") and other.startswith("eval.tasks.")
        if benchmark(name) != benchmark(other) and benchmark(other) not in ("base", "nltk_words")
    }

    # The judge compares captions of CHAIR's runs, and rates MMHal-Bench's answers.
    yes_no = ("pope", "mme", "amber", "dash_b", "hallusionbench")
    assert pairs <= {
        *((name, "yes_no") for name in yes_no), ("judge", "chair"), ("mmhal", "judge"),
        ("chair", "open_text"), ("mmhal", "open_text"),
    }  # fmt: skip


def test_there_are_few_files_and_lines() -> None:
    paths = list((ROOT / "eval").rglob("*.py"))
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)

    assert len(paths) <= FILES
    assert lines <= LINES


def test_each_folder_says_in_two_sentences_what_lives_there() -> None:
    folders = [path for path in (ROOT / "eval").rglob("*") if any(path.glob("*.py"))]

    assert len(folders) > 5
    for folder in folders:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert text, f"{folder}/__init__.py has no docstring"
        assert 1 < len(re.findall(r"[.:;](?:\s|$)", text)) <= 5, folder


def test_no_module_at_the_top_hides_one_of_pythons() -> None:
    """`python eval/x.py` puts eval/ first on the path."""
    names = {path.stem for path in (ROOT / "eval").iterdir()}

    assert names & set(sys.stdlib_module_names) == set()


def test_mme_is_one_short_file() -> None:
    assert len((ROOT / "eval/tasks/mme.py").read_text().splitlines()) <= 150


def test_what_is_not_written_again() -> None:
    for path in sorted((ROOT / "eval").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^Row\b.*= *dict\[str, Any\]", text, re.MULTILINE), path
        assert path.stem not in ("utils", "util", "helpers", "misc", "common"), path
    assert literals("baseline") == {"eval/files/answers.py": 1}


def literals(text: str) -> dict[str, int]:
    """Return how often a string stands alone in each file, docstrings and keys of JSON aside."""
    found: dict[str, int] = {}
    for path in sorted((ROOT / "eval").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        keys = {
            id(key) for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys
        }
        count = sum(
            isinstance(node, ast.Constant) and node.value == text and id(node) not in keys
            for node in ast.walk(tree)
        )
        if count:
            found[path.relative_to(ROOT).as_posix()] = count
    return found
