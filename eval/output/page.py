"""The template of a self-contained report page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES: Final = Path(__file__).parent / "templates"


def script_hash(text: str) -> str:
    """Return a script's SHA-256 as a content security policy states it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def page_template(path: Path, filters: Mapping[str, Any]) -> Template:
    """Load a template, in which all text is escaped and an unknown name is an error.

    Args:
        path: The template; it may include files beside it.
        filters: Functions by the names that the template calls them.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # no text needs it

    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sha256": script_hash, **filters}
    return environment.get_template(path.name)
