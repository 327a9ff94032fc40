"""What a result depends on besides its settings: versions, device, commit, data."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

import eah
from eval.run.checkout import git_commit

PACKAGES: Final = ("torch", "transformers", "tokenizers", "sentencepiece", "pillow", "numpy",
                   "scipy")  # fmt: skip


def provenance(device: str) -> dict[str, Any]:
    """Return versions, device, commit and time of a run."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": {
            "eah": eah.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "device": device_name(device),
        "git": git_commit(),
    }


def device_name(device: str) -> str:
    """Return what a person would call the device."""
    if device.startswith("cuda"):
        return f"{device}: {torch.cuda.get_device_name(device)}"
    if device == "auto":
        return f"{torch.cuda.device_count()} GPUs"
    return f"{device}: {platform.machine()}, {torch.get_num_threads()} threads"


def images_hash(folder: Path, names: Iterable[str]) -> str:
    """Return a SHA-256 over the names and sizes of the pictures that a run uses."""
    digest = hashlib.sha256()
    for name in sorted(set(names)):
        digest.update(f"{name}:{(folder / name).stat().st_size}\n".encode())
    return digest.hexdigest()
