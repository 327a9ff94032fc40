"""A small install of transformers, and what the tests of the swap do with it."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import zipfile
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
    (folder / f"configuration_{family}.py").touch()
    file = folder / f"modeling_{family}.py"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with (site / f"transformers-{VERSION}.dist-info" / "RECORD").open("a") as record:
        record.write(row(file.relative_to(site).as_posix(), file.read_bytes()))
    return file


def row(name: str, content: bytes) -> str:
    """Return the line of RECORD for a file."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    return f"{name},sha256={digest},{len(content)}\n"


def write_wheel(folder: Path, files: dict[str, bytes], *, version: str = VERSION) -> Path:
    """Write a wheel of transformers that holds some files."""
    info = f"transformers-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n"
    files = {
        **files,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    wheel = folder / f"transformers-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        record = "".join(row(name, content) for name, content in files.items())
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return wheel


def git(folder: Path, *arguments: str) -> None:
    """Run git, whatever the user's configuration."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "someone@example.org"
           for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }  # fmt: skip
    subprocess.run(
        ["git", "-C", str(folder), *arguments], env=environment, check=True, capture_output=True
    )


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
