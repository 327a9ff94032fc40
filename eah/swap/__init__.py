"""Replace transformers' own modeling file by EAH's, and restore it.

    python -m eah.swap install [--python PATH | --site-packages PATH | --file PATH] [--model qwen2]
    python -m eah.swap status      what is installed; exit status 1 if something is wrong
    python -m eah.swap restore
    python -m eah.swap check FOLDER     code that the swap can't reach
    python -m eah.swap selftest         test an install
    python -m eah.swap build [--check]  modeling_llama_eah.py from the files of eah/

The original is kept next to it, unchanged, as modeling_llama_original.py, with its checksum. Each
step replaces one file atomically, so an interrupted command leaves a working install. docs/swap.md
has the details. Needs the standard library only.
"""

from __future__ import annotations

from eah.swap.command import main
from eah.swap.content import SOURCE, drop_in_for, lazy_exports
from eah.swap.exchange import install, restore
from eah.swap.locate import find
from eah.swap.place import Place, SwapError
from eah.swap.report import describe, problems
from eah.swap.states import Status, status

__all__ = [
    "SOURCE",
    "Place",
    "Status",
    "SwapError",
    "describe",
    "drop_in_for",
    "find",
    "install",
    "lazy_exports",
    "main",
    "problems",
    "restore",
    "status",
]
