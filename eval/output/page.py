"""Templates of self-contained report pages."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

TEMPLATES: Final = Path(__file__).parent / "templates"
LARGE: Final = (640, 640)  # pixels of a picture, which is enlarged on a click
MANY: Final = 100  # more pictures than this are embedded at the size of a thumbnail


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
    environment.filters |= {"sha256": script_hash, **(filters or {})}
    environment.globals |= {"source": _source, "scripts": ["page.js"]}
    return environment.get_template(name)


def _source(name: str) -> Markup:
    """Return a style sheet or script of this project, unescaped."""
    from markupsafe import Markup

    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
