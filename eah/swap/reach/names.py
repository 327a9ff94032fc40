"""Resolve the names in a file, and find which files of the folder import which."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from eah.swap.reach.sources import Source

# Attention and model classes of the families that EAH's file is tested with.
ATTENTION: Final = re.compile(r"(Llama|LLaMA|Mistral|Qwen2)\w*Attention\w*")
MODEL: Final = re.compile(r"(Llama|LLaMA|Mistral|Qwen2)Model")


@dataclass(frozen=True, slots=True)
class Names:
    """Names of a file.

    Attributes:
        imported: Name in the file -> dotted name of what is imported.
        classes: Classes that the file defines.
    """

    imported: dict[str, str]
    classes: dict[str, ast.ClassDef]

    @classmethod
    def of(cls, tree: ast.Module) -> Names:
        """Return the names of a file, including those in its functions."""
        imported = {}
        classes: dict[str, ast.ClassDef] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.asname:
                        imported[alias.asname] = alias.name
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                joint = "" if module.endswith(".") else "."
                for alias in node.names:
                    imported[alias.asname or alias.name] = f"{module}{joint}{alias.name}"
            elif isinstance(node, ast.ClassDef):
                classes[node.name] = node
        return cls(imported, classes)

    def dotted(self, node: ast.AST) -> str:
        """Return the dotted name that an expression means; "" if it is not a name."""
        if isinstance(node, ast.Name):
            return self.imported.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            owner = self.dotted(node.value)
            return f"{owner}.{node.attr}" if owner else ""
        return ""


@dataclass(frozen=True, slots=True)
class Functions:
    """Functions whose code is available.

    Attributes:
        own: The file's own, by name; methods as Class.method.
        elsewhere: Those that only one file of the folder defines, by name.
    """

    own: dict[str, ast.AST]
    elsewhere: dict[str, ast.AST]


def functions_of(tree: ast.Module) -> dict[str, ast.AST]:
    """Return the functions of a file by name, methods as Class.method."""
    found: dict[str, ast.AST] = {}
    methods = set()
    for node in ast.walk(tree):  # outer nodes come first
        if isinstance(node, ast.ClassDef):
            for child in node.body:
                if isinstance(child, ast.FunctionDef):
                    found[f"{node.name}.{child.name}"] = child
                    methods.add(child)
        elif isinstance(node, ast.FunctionDef) and node not in methods:
            found.setdefault(node.name, node)
    return found


def last(dotted: str) -> str:
    """Return what follows the last dot."""
    return dotted.rpartition(".")[2]


def importers(module: Source, sources: tuple[Source, ...]) -> list[str]:
    """Return the lines of other files that import a file."""
    path = PurePosixPath(module.path).with_suffix("")
    path = path.parent if path.name == "__init__" else path
    found = []
    for source in sources:
        if source.tree is None or source is module or path.name not in source.text:
            continue
        here = PurePosixPath(source.path).parent
        lines = [line for name, line in _imports(source.tree) if _refers_to(name, path, here)]
        if lines:
            found.append(source.place(min(lines)))
    return found


def _imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield each dotted name that is imported, as a module or from one, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module, node.lineno
            joint = "" if module.endswith(".") else "."
            yield from ((f"{module}{joint}{alias.name}", node.lineno) for alias in node.names)


def _refers_to(name: str, path: PurePosixPath, here: PurePosixPath) -> bool:
    """Return whether an import in folder `here` means the file at `path`, without its suffix.

    The folders that Python searches are not known, so an absolute name means every file whose path
    ends in it; a name without a dot one next to the importing file, or at the top.
    """
    level = len(name) - len(name.lstrip("."))
    parts = tuple(name[level:].split("."))
    if level:
        parents = (here, *here.parents)
        return level <= len(parents) and path == parents[level - 1].joinpath(*parts)
    if len(parts) == 1:
        return path in (here / parts[0], PurePosixPath(parts[0]))
    return path.parts[-len(parts) :] == parts
