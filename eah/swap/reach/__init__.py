"""List code of a folder that a swap of transformers' modeling_llama.py can't reach.

    python -m eah.swap check FOLDER

Reads Python files and notebooks, and runs none of them. Exit status: 0 if a swap reaches all of the
Llama code there, 1 if not, 2 if there is nothing to read.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from eah.swap.reach.classes import class_findings
from eah.swap.reach.findings import Finding, Kind
from eah.swap.reach.kernels import kernel_findings
from eah.swap.reach.names import Functions, Names, functions_of, importers
from eah.swap.reach.replaced import replacement_findings
from eah.swap.reach.sources import Folder, Source, read_folder
from eah.swap.reach.text import text_findings

FOUND: Final = 1
BAD_INPUT: Final = 2
SHARING: Final = "class SharingAttention"  # EAH's own file
RELEVANT: Final = re.compile(  # saves time in large folders
    r"attn|attention|(llama|mistral|qwen2)model|ForCausalLM|ForConditional|LMHead", re.IGNORECASE
)
SHOWN: Final = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="eah.swap check",
        description="List code that a swap of transformers' modeling_llama.py can't reach.",
    )
    parser.add_argument("folder", type=Path, help="folder with the code, such as a clone of LLaVA")
    root = parser.parse_args(arguments).folder
    if not root.is_dir():
        print(f"eah: error: {root} is not a folder; name the one with the code", file=sys.stderr)
        return BAD_INPUT
    folder = read_folder(root)
    if not folder.sources and not folder.vendored:
        reason = f" ({folder.unread[0][0]}: {folder.unread[0][1]})" if folder.unread else ""
        print(
            f"eah: error: {root} has no Python file and no notebook that can be read{reason}; name "
            "the folder with the code",
            file=sys.stderr,
        )
        return BAD_INPUT
    found = find_unreached(folder)
    encoding = sys.stdout.encoding or "utf-8"  # paths may contain characters that it cannot show
    print(report(folder, found).encode(encoding, "backslashreplace").decode(encoding))
    return FOUND if found else 0


def find_unreached(folder: Folder) -> list[tuple[Source, Finding]]:
    """Return what a swap can't reach, sorted by kind, path and line."""
    found = [(source, finding) for source in folder.vendored for finding in _vendored(source)]
    elsewhere = _functions(folder)
    swapped = {source.path for source in folder.sources if SHARING in source.text}
    for source in folder.sources:
        if source.path.replace("_original.py", ".py") in swapped:
            continue
        if RELEVANT.search(source.text):
            found += [(source, finding) for finding in _findings(source, elsewhere)]
    order = list(Kind)
    return sorted(found, key=lambda pair: (order.index(pair[1].kind), pair[0].path, pair[1].line))


def _findings(source: Source, elsewhere: dict[str, ast.AST]) -> Iterator[Finding]:
    if source.tree is None:
        yield from text_findings(source.text)
        return
    names = Names.of(source.tree)
    yield from class_findings(source, names)
    functions = Functions(functions_of(source.tree), elsewhere)
    yield from replacement_findings(source.tree, names, functions)
    yield from kernel_findings(source.tree, source.path)


def _vendored(source: Source) -> Iterator[Finding]:
    if SHARING not in source.text:
        yield Finding(Kind.VENDORED, 1, "a copy of transformers, none of whose files were read")


def _functions(folder: Folder) -> dict[str, ast.AST]:
    """Return the functions of all files whose name only one file defines."""
    found: dict[str, list[ast.AST]] = {}
    for source in folder.sources:
        if source.tree is not None and RELEVANT.search(source.text):
            for name, node in functions_of(source.tree).items():
                found.setdefault(name, []).append(node)
    return {name: nodes[0] for name, nodes in found.items() if len(nodes) == 1}


def report(folder: Folder, found: Sequence[tuple[Source, Finding]]) -> str:
    """Return one block per kind, then what was read and what was not."""
    lines: list[str] = []
    for kind in Kind:
        block = [(source, finding) for source, finding in found if finding.kind is kind]
        if not block:
            continue
        lines.append(f"{kind.heading}:")
        for source, finding in block:
            lines.append(f"  {source.place(finding.line)}  {finding.what}")
            if finding.is_module:
                lines.append(f"      {_imported(source, folder)}")
        lines += [f"  -> {kind.advice}", ""]
    for source in folder.sources:
        if source.problem:
            place = source.place(source.problem_line)
            lines.append(f"read as text, as it does not parse: {place} ({source.problem})")
    lines += [f"not read: {path} ({reason})" for path, reason in folder.unread]
    count = len(folder.sources)
    files = (
        f"{count} Python file or notebook" if count == 1 else f"{count} Python files and notebooks"
    )
    end = (
        f"found: {len(found)}"
        if found
        else "a swap of modeling_llama.py reaches the Llama code here"
    )
    return "\n".join([*lines, f"{files} read; {end}"])


def _imported(source: Source, folder: Folder) -> str:
    positions = importers(source, folder.sources)
    more = f" and {len(positions) - SHOWN} more" if len(positions) > SHOWN else ""
    return f"imported by {', '.join(positions[:SHOWN]) or 'no file here'}{more}"
