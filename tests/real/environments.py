"""Where the scripts run: interpreters, what they import besides, transformers with EAH's file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from row import Row

ROOT: Final = Path(__file__).resolve().parents[2]
# Of the scripts' time where it matters; they import nothing of torch's.
EXTRAS: Final = (
    "accelerate==0.21.0",
    "antlr4-python3-runtime==4.9.3",
    "einops",
    "omegaconf",
    "pillow",
    "protobuf==4.25.3",
    "psutil",
    "sentencepiece",
    "shortuuid",
)


def interpreter(venvs: Path, version: str) -> Path:
    """Return the Python of a version of transformers.

    Raises:
        SystemExit: If the folder has none, or one with EAH's file in it.
    """
    python = venvs / f"transformers-{version}" / "bin" / "python"
    if not python.exists():
        sys.exit(
            f"{venvs} has no transformers-{version}; `bash scripts/test_matrix.sh {version}` makes "
            "it in .venvs/"
        )
    llama = site_packages(python) / "transformers" / "models" / "llama"
    if (llama / "modeling_llama_original.py").exists():
        sys.exit(f"{python} has EAH's file; `python -m eah.swap restore --python {python}` first")
    return python


def site_packages(python: Path) -> Path:
    """Return an environment's site-packages."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return Path(subprocess.check_output([str(python), "-c", code], text=True).strip())


def extras(work: Path, python: Path) -> Path:
    """Return a folder with what the scripts import besides; pip fills it once."""
    folder = work / "extras"
    if not folder.exists():
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*command, "--target", str(folder), *EXTRAS], check=True)
    return folder


def missing(row: Row, checkouts: Path) -> str | None:
    """Return the checkout that a row needs and the user does not have."""
    others = [argument for argument in row.arguments if argument.startswith("{checkouts}/")]
    names = [row.folder, *(argument.split("/")[1] for argument in others)]
    return next((name for name in names if not (checkouts / name).is_dir()), None)


def checkout(row: Row, checkouts: Path, work: Path) -> Path:
    """Copy a checkout, with its edits.

    Raises:
        SystemExit: If it has no longer what is edited.
    """
    copy = work / "checkout"
    shutil.copytree(
        checkouts / row.folder, copy, symlinks=True, ignore=shutil.ignore_patterns(".git")
    )
    if row.folder_made is not None:
        (copy / row.folder_made).mkdir()
    for name, before, after in row.edits:
        text = (copy / name).read_text()
        if before not in text:
            sys.exit(f"{row.folder}/{name} has no {before!r}; is it the commit in row.py?")
        (copy / name).write_text(text.replace(before, after.format(work=work)))
    return copy


def swapped(row: Row, python: Path, copy: Path, work: Path) -> Path | None:
    """Swap EAH's file into a copy of what the script imports; return a folder to import from."""
    if row.file is not None:
        eah_swap("install", "--file", str(copy / row.file))
        return None
    if row.vendored is not None:
        site = work / "vendored"
        shutil.copytree(copy / row.vendored, site)
    else:
        site = work / "site-packages"
        for folder in site_packages(python).glob("transformers*"):
            shutil.copytree(folder, site / folder.name)
    modeling = site / "transformers" / "models" / "llama" / "modeling_llama.py"
    if not row.keeps_original:
        shutil.copy(ROOT / "eah" / "modeling_llama_eah.py", modeling)
        return site
    eah_swap("install", "--site-packages", str(site))
    return site


def eah_swap(*arguments: str) -> None:
    """Run `python -m eah.swap`.

    Raises:
        SystemExit: If it fails.
    """
    done = call_swap(*arguments)
    if done.returncode != 0:
        sys.exit(f"eah.swap {' '.join(arguments)}: {done.stdout}{done.stderr}")


def call_swap(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m eah.swap`, whatever comes of it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "eah.swap", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
