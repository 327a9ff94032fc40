"""Put EAH's modeling file in the place of transformers' own, and take it back.

    python -m eah.swap install [--python PATH | --site-packages PATH | --file PATH] [--model qwen2]
    python -m eah.swap status      what stands there; exit status 1 if something is wrong
    python -m eah.swap restore
    python -m eah.swap check FOLDER     code that the swap can't reach
    python -m eah.swap selftest         a test of an install
    python -m eah.swap build [--check]  modeling_llama_eah.py from the files of eah/

The original stays beside it, byte for byte, as modeling_llama_original.py, with its checksum. Each
step replaces one file as a whole: whenever it is interrupted, what is there works. docs/swap.md has
the details. Needs the standard library alone.
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
