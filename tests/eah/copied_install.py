"""A copy of the installed transformers that tests may swap EAH's file into."""

from __future__ import annotations

import shutil
from pathlib import Path

import transformers


def copy_install(folder: Path, *families: str) -> None:
    """Fill a folder with the installed transformers: links, and copies of what may be swapped.

    Args:
        folder: Empty folder.
        families: Whose files are copied; none for Llama's alone.
    """
    families = families or ("llama",)
    installed = Path(transformers.__file__).parent
    copied = folder / "transformers"
    _link_children(installed, copied, "models")
    _link_children(installed / "models", copied / "models", *families)
    for family in families:
        shutil.copytree(installed / "models" / family, copied / "models" / family)
    (record,) = installed.parent.glob(f"transformers-{transformers.__version__}.dist-info")
    shutil.copytree(record, folder / record.name)


def _link_children(source: Path, target: Path, *without: str) -> None:
    target.mkdir()
    for child in source.iterdir():
        if child.name not in (*without, "__pycache__"):
            (target / child.name).symlink_to(child)
