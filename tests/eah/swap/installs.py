"""A small install of transformers, and what the tests of the swap do with it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from eah import swap

VERSION = "4.99.0"
DECODER = '''"""A decoder."""
from torch import nn

class {name}Attention(nn.Module):
    def forward(self, scores):
        return nn.functional.softmax(scores, dim=-1)

class {name}DecoderLayer(nn.Module):
    def __init__(self):
        self.self_attn = {name}Attention()

class {name}PreTrainedModel(nn.Module):
    pass

class {name}Model({name}PreTrainedModel):
    def __init__(self):
        self.layers = nn.ModuleList([{name}DecoderLayer()])

class {name}ForCausalLM({name}PreTrainedModel):
    pass

__all__ = [
    "{name}PreTrainedModel",
    "{name}Model",
    "{name}ForCausalLM",
]
# \u00e9\u6f22 and no newline at the end'''
FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}


def write_family(site: Path, family: str, content: str | bytes) -> Path:
    """Write a family's file as pip would have, with its row in RECORD."""
    folder = site / "transformers" / "models" / family
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").touch()
    file = folder / f"modeling_{family}.py"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).decode()
    row = f"{file.relative_to(site).as_posix()},sha256={digest.rstrip('=')},{file.stat().st_size}"
    with (site / f"transformers-{VERSION}.dist-info" / "RECORD").open("a") as record:
        record.write(row + "\n")
    return file


def tree(site: Path) -> dict[str, bytes]:
    """Return the files below a folder."""
    return {
        str(path.relative_to(site)): path.read_bytes()
        for path in sorted(site.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(site).parts
    }


def ours() -> bytes:
    """Return EAH's file for llama."""
    return swap.SOURCE.read_bytes()


def run(site: Path, *arguments: str) -> int:
    """Run the command on an install."""
    return swap.main([*arguments, "--site-packages", str(site)])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error: the last line on standard error, after those that say what is done."""
    *said, error = capsys.readouterr().err.splitlines()
    assert error.startswith("eah: error: ")
    assert all(line.startswith("eah: ") and "error" not in line for line in said)
    return error


def interpreter(folder: Path, body: str) -> Path:
    """Write something that can be run as an interpreter."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path
