"""Templates of self-contained report pages, and what they show of a terminal's text."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

TEMPLATES: Final = Path(__file__).parent / "templates"
LARGE: Final = (640, 640)  # pixels of a picture, which is enlarged on a click
MANY: Final = 100  # more pictures than this are embedded at the size of a thumbnail
# A name may be broken after these signs, and after 20 characters without one.
WORD_PARTS: Final = re.compile(r"[^\s,=@+/_-]{1,20}[,=@+/_-]*|[\s\S]")


def script_hash(text: str) -> str:
    """Return a script's SHA-256 as a content security policy states it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def picture_size(count: int, small: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size of each picture of a page, in pixels, so that the page stays small.

    Args:
        count: Number of pictures.
        small: The size for many pictures.
    """
    return LARGE if count <= MANY else small


def page_template(name: str, filters: Mapping[str, Any] | None = None) -> Template:
    """Load a template, in which all text is escaped and an unknown name is an error.

    Args:
        name: File name of the template in `templates/`.
        filters: Functions by the names that the template calls them.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # no text needs it

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"sha256": script_hash, "breakable": _breakable,
                            "units": _units, **(filters or {})}  # fmt: skip
    environment.globals |= {"source": _source, "scripts": ["page.js"]}
    return environment.get_template(name)


def text_blocks(text: str) -> list[Any]:
    """Return the tables of a text as pairs of header and rows, and its other lines as texts."""
    found: list[Any] = []
    for block in text.split("\n\n"):
        lines = block.strip("\n").splitlines()
        rows = [[cell.strip() for cell in line[2:-2].split(" | ")] for line in lines]
        is_table = len(rows) > 2 and all(line.startswith("| ") for line in lines)
        if is_table and len({len(row) for row in rows}) == 1:
            found.append((rows[0], rows[2:]))
        else:
            found += unwrap(block)
    return found


def unwrap(text: str) -> list[str]:
    """Return the lines of a text; indented lines continue the line before."""
    found: list[str] = []
    for line in filter(str.strip, text.splitlines()):
        if line.startswith(" ") and found:
            found[-1] += " " + line.strip()
        else:
            found.append(line.strip())
    return found


def _units(text: str) -> str:
    """Return a text whose percent signs stay with their numbers."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _breakable(name: Any) -> Markup:
    """Return a name that a narrow column may break between its parts."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in WORD_PARTS.findall(str(name)))


def _source(name: str) -> Markup:
    """Return a style sheet or script of this project, unescaped."""
    from markupsafe import Markup

    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
