"""The judge's prompt, from a file that the user provides, since the benchmark's is under GPL-3.

Texts are inserted unchanged: braces in an answer are not fields.
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Final

from eval.errors import EvaluationError
from eval.files.text import read_text

FIELDS: Final = ("the labels", "the question", "the reference answer", "the response")
SOURCE: Final = "Eval/eval_gpt_mmhal.py of LLaVA-RLHF"
NAME: Final = "template"  # variable of the text in that script


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt with four fields.

    Attributes:
        parts: The five texts around the fields.
        sha256: SHA-256 of the template's text.
    """

    parts: tuple[str, ...]
    sha256: str

    def fill(self, *texts: str) -> str:
        """Return the prompt with a text in each field, in the order of FIELDS."""
        first, *others = self.parts
        return first + "".join(text + part for text, part in zip(texts, others, strict=True))


def read_template(path: Path | None) -> Template:
    """Read a template: a text with four `{}`, or the benchmark's own script with it inside.

    Raises:
        EvaluationError: If the path is None, the file can't be read, or it has other fields.
    """
    if path is None:
        raise EvaluationError(
            f"no template: pass the file with the judge's prompt as --template; {SOURCE} can be "
            "used directly (its licence is GPL-3, so it is not part of this project)"
        )
    text = read_text(path)
    if path.suffix == ".py":
        text = _in_script(path, text)
    order = f"four {{}} are needed, for {', '.join(FIELDS[:3])} and {FIELDS[3]}"
    parts, fields = [""], 0
    try:
        for literal, name, spec, conversion in Formatter().parse(text):
            parts[-1] += literal
            if name is None:
                continue
            if name or spec or conversion:
                raise EvaluationError(
                    f"{path} has the field {{{name:.40}}}, which is not filled; {order}, and other "
                    "braces must be doubled"
                )
            fields += 1
            parts.append("")
    except ValueError as error:
        raise EvaluationError(
            f"{path} is not a template ({error}); {order}, and other braces must be doubled"
        ) from error
    if fields != len(FIELDS):
        raise EvaluationError(f"{path} has {fields} fields; {order}")
    return Template(tuple(parts), hashlib.sha256(text.encode("utf-8", "replace")).hexdigest())


def _in_script(path: Path, text: str) -> str:
    """Return the string that a Python file assigns to `template`, without running the file."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise EvaluationError(
            f"{path} is not a valid Python file ({error}); pass the prompt as a text file"
        ) from error
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [one.id for one in node.targets if isinstance(one, ast.Name)]
            if NAME in names and isinstance(node.value.value, str):
                return node.value.value
    raise EvaluationError(
        f"{path} has no string called {NAME!r}; pass {SOURCE}, or the prompt as a text file"
    )
