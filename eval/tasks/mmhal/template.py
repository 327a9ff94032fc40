"""The judge's prompt: a file of the user's, since the benchmark's own is under GPL-3.

Texts are put between its parts as they are: braces in an answer are no fields.
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
NAME: Final = "template"  # of the text in that script


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt with four places.

    Attributes:
        parts: The five texts around the places.
        sha256: Of the template's text.
    """

    parts: tuple[str, ...]
    sha256: str

    def fill(self, *texts: str) -> str:
        """Return the prompt with a text in each place, in the order of FIELDS."""
        first, *others = self.parts
        return first + "".join(text + part for text, part in zip(texts, others, strict=True))


def read_template(path: Path | None) -> Template:
    """Read a template: a text with four `{}`, or the benchmark's own script with it inside.

    Raises:
        EvaluationError: If none is given, it can't be read, or it has other fields.
    """
    if path is None:
        raise EvaluationError(
            f"no template: pass --template with the judge's prompt; it is in {SOURCE}, which can "
            "be passed as it is (its licence is GPL-3, so it is not part of this project)"
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
                    "braces are written twice"
                )
            fields += 1
            parts.append("")
    except ValueError as error:
        raise EvaluationError(
            f"{path} is no template ({error}); {order}, and other braces are written twice"
        ) from error
    if fields != len(FIELDS):
        raise EvaluationError(f"{path} has {fields} fields; {order}")
    return Template(tuple(parts), hashlib.sha256(text.encode("utf-8", "replace")).hexdigest())


def _in_script(path: Path, text: str) -> str:
    """Return the text that a Python file gives the name `template`; nothing of it is run."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise EvaluationError(
            f"{path} is no Python file ({error}); pass the prompt as a text file"
        ) from error
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [one.id for one in node.targets if isinstance(one, ast.Name)]
            if NAME in names and isinstance(node.value.value, str):
                return node.value.value
    raise EvaluationError(
        f"{path} sets no text called {NAME!r}; pass {SOURCE}, or the prompt as a text file"
    )
