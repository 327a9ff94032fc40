"""Find the modeling file that the flags name."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from eah.drop_in.names import ORIGINAL_SUFFIX
from eah.swap.checkout import committed_original
from eah.swap.content import is_ours, sha256
from eah.swap.place import GIT, RECORDS, Place, SwapError
from eah.swap.records import recorded_checksum, recorded_version, version_in

PACKAGE: Final = "transformers"
FIND: Final = (  # `-c` would search the current folder first
    "import importlib.util as u, sys; sys.path = [folder for folder in sys.path if folder];"
    "s = u.find_spec('transformers'); print(s.origin if s else '')"
)
# They set the module path of our interpreter, not of the other one.
CALLERS: Final = ("PYTHONPATH", "PYTHONHOME")
TIMEOUT_S: Final = 60.0
COPY: Final = re.compile(r"(.*modeling_)?(.+)\.py")


def find(
    *, family: str, python: Path | None = None, site_packages: Path | None = None,
    file: Path | None = None,
) -> Place:  # fmt: skip
    """Find the modeling file of a family.

    Args:
        family: Such as "llama" or "qwen2".
        python: Interpreter that has the transformers, an absolute path; None for the running one.
        site_packages: Folder with the package instead, or a checkout of transformers.
        file: The modeling file itself instead, in a transformers or a repository's own copy.
    Raises:
        SwapError: If there is no such file.
    """
    if file is not None:
        return _place_of_file(file)
    if site_packages is not None:
        return _place_in(package_in(site_packages), family, python=None)
    if python is not None:
        origin = _origin_in(python)
    else:
        spec = importlib.util.find_spec(PACKAGE)
        origin = str(spec.origin) if spec else ""  # "None" for a folder without __init__.py
    package = Path(origin).parent
    _validate_package(package, Path(origin), python or Path(sys.executable))
    return _place_in(package, family, python=python or Path(sys.executable))


def interpreter_of(text: str) -> Path:
    """Return an interpreter as a shell would find it: by its path, or by its name alone.

    A path is kept: `./python` is not the `python` on the PATH. Links are not resolved: Python finds
    a virtual environment by its link.
    """
    return Path(os.path.abspath(text) if os.path.dirname(text) else shutil.which(text) or text)


def environment_of_target() -> dict[str, str]:
    """Return the environment in which another interpreter finds its own modules."""
    return {name: value for name, value in os.environ.items() if name not in CALLERS}


def package_in(folder: Path) -> Path:
    """Return the package in site-packages, in a checkout, or as it is."""
    folder = Path(os.path.abspath(folder))
    candidates = [folder / PACKAGE, folder / "src" / PACKAGE]
    if (folder / "models").is_dir():
        candidates.append(folder)
    for package in candidates:
        if (package / "__init__.py").is_file():
            return package
    _validate_package(candidates[0], candidates[0] / "__init__.py", folder)
    return candidates[0]


def _validate_package(package: Path, init: Path, where: Path) -> None:
    if any(parent.is_file() for parent in package.parents):
        raise SwapError(f"transformers at {package} is in a zip file; install it as a folder")
    if not init.is_file():
        raise SwapError(
            f"{where} has no transformers; install it there, or name another place with --python, "
            "--site-packages or --file"
        )


def _place_in(package: Path, family: str, python: Path | None) -> Place:
    """Return the place of a family in a package."""
    version = version_in(package)
    file = package / "models" / family / f"modeling_{family}.py"
    place = Place(family, file, package, version or "", python=python)
    if recorded := recorded_checksum(package, family, version):
        place = replace(place, version=recorded[0], recorded=recorded[1], record=RECORDS)
        # The wheel was built from a tree in which the original had been overwritten.
        content = file.read_bytes() if file.is_file() else b""
        if is_ours(content) and sha256(content) == place.recorded:
            place = replace(place, recorded="", record="")
        return place
    place = replace(place, version=version or recorded_version(package) or "")
    place = _with_commit(place)
    if not place.recorded and not _exists(place):
        raise SwapError(
            f"transformers at {package} has no models/{family}/{file.name}; --model is the name "
            "of one of its folders in models/, such as llama or qwen2"
        )
    return place


def _place_of_file(file: Path) -> Place:
    """Return the place of a file that the user names."""
    file = Path(os.path.abspath(file))
    family = file.parent.name
    if file.suffix != ".py" or file.stem.endswith(ORIGINAL_SUFFIX) or file.is_dir():
        raise SwapError(
            f"--file {file} is not a file that code imports; name the modeling file itself, such "
            "as minigpt4/models/modeling_llama.py"
        )
    package = file.parents[min(2, len(file.parents) - 1)]
    in_package = file.parent.parent.name == "models" and file.name == f"modeling_{family}.py"
    if in_package and package.name == PACKAGE and (package / "__init__.py").is_file():
        return _place_in(package, family, python=None)
    found = COPY.fullmatch(file.name)
    place = _with_commit(Place(found[2] if found else file.stem, file))
    if not place.recorded and not place.file.is_file() and not place.original.is_file():
        raise SwapError(f"--file {file} does not exist; name the modeling file that code imports")
    return place


def _exists(place: Place) -> bool:
    """Return whether the file, its kept original, or its model's configuration exists."""
    config = place.file.parent / f"configuration_{place.family}.py"
    return any(path.is_file() for path in (place.file, place.original, config))


def _with_commit(place: Place) -> Place:
    """Return a place with the checksum of its file in git, if it is in git."""
    content = committed_original(place)
    if content is None:
        return place
    return replace(place, recorded=sha256(content), record=GIT)


def _origin_in(python: Path) -> str:
    """Return where another interpreter finds transformers."""
    try:
        found = subprocess.run(
            [str(python), "-c", FIND], capture_output=True, text=True, check=True,
            env=environment_of_target(), stdin=subprocess.DEVNULL, timeout=TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SwapError(
            f"--python {python} does not say where its transformers is within {TIMEOUT_S:.0f} "
            "seconds; name an interpreter, or the folder with --site-packages"
        ) from error
    except OSError as error:
        raise SwapError(
            f"--python {python} can't be run ({error.strerror}); name an interpreter"
        ) from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise SwapError(
            f"--python {python} can't be run (exit status {error.returncode}: {said}); name an "
            "interpreter"
        ) from error
    return (found.stdout.splitlines() or [""])[-1]
