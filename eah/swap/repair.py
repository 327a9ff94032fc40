"""Recover an overwritten original from git, or from the wheel of the same version."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from eah.swap.checkout import committed_original
from eah.swap.content import looks_original, sha256
from eah.swap.locate import environment_of_target
from eah.swap.place import GIT, Place, SwapError

SITES: Final = ("site-packages", "dist-packages")
INTERPRETERS: Final = ("bin/python", "bin/python3", "python.exe", "Scripts/python.exe")
DOWNLOAD: Final = ("download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check")
TIMEOUT_S: Final = 900
Say = Callable[[str], None]


def fetch_original(place: Place, say: Say) -> bytes:
    """Return the original of a place.

    Args:
        place: Where it belongs.
        say: Called with progress messages.
    Raises:
        SwapError: If it can't be recovered; the message names a repair command.
    """
    if place.record == GIT:
        say(f"getting the original from the last commit that has it (git, {place.file})")
        content = committed_original(place)
    elif place.package is None:
        raise SwapError(
            f"the original of {place.file} is in no git history that could be asked; "
            f"{advice(place)}"
        )
    else:
        content = _from_wheel(place, say)
    if content is None or (place.recorded and sha256(content) != place.recorded):
        raise SwapError(
            f"the original of {place.file} could not be got back: what was found is not the file "
            f"that was installed (its checksum differs); {advice(place)}"
        )
    if not place.recorded and not looks_original(place, content):
        raise SwapError(
            f"what the wheel of transformers {place.version} has as {place.file.name} is not an "
            f"original; {advice(place)}"
        )
    return content


def interpreters(place: Place) -> list[Path]:
    """Return the interpreters whose pip may be asked, the one of the place first."""
    return list(dict.fromkeys([*_known_interpreters(place), Path(sys.executable)]))


def _known_interpreters(place: Place) -> list[Path]:
    """Return the interpreters that are known to use a place."""
    found = [place.python] if place.python else []
    if place.package is not None and place.package.parent.name in SITES:
        prefixes = list(place.package.parents)[1:5]
        paths = [prefix / name for prefix in prefixes for name in INTERPRETERS]
        found += [path for path in paths if path.is_file()][:1]
    return found


def advice(place: Place) -> str:
    """Return a command that repairs a place without EAH. It does not overwrite kept files."""
    if place.package is None:
        return f"put the repository's own file there as {place.original}"
    wanted = f"transformers=={place.version or 'VERSION'}"
    if place.package.parent.name in SITES:
        command = f"-m pip install --force-reinstall --no-deps {wanted}"
        if known := _known_interpreters(place):
            return f"run: {shlex.quote(str(known[0]))} {command}"
        return f"run, with the Python of that environment: PYTHON {command}"
    python = shlex.quote(str(interpreters(place)[0]))
    folder = f"transformers-{place.version or 'VERSION'}-wheel"
    return (
        f"run: {python} -m pip download --no-deps -d {folder} {wanted} && "
        f"{python} -m zipfile -e {folder}/transformers-*.whl {folder} && "
        f"cp -i {folder}/{_member(place)} {shlex.quote(str(place.original))}"
    )


def _member(place: Place) -> str:
    return f"transformers/models/{place.family}/{place.file.name}"


def _from_wheel(place: Place, say: Say) -> bytes:
    """Return the file as it is in the wheel of the same version, got by pip."""
    if not place.version:
        raise SwapError(
            f"the original of {place.file} is gone, and the version of that transformers is not "
            f"known; put the file of that version there as {place.original}"
        )
    failure = ""
    for python in interpreters(place):
        with tempfile.TemporaryDirectory(prefix="eah-") as folder:
            command = [
                str(python), "-m", "pip", *DOWNLOAD, f"transformers=={place.version}",
            ]  # fmt: skip
            say(f"getting the original from its wheel ({shlex.join(command)})")
            failure = _download([*command, "-d", folder], folder)
            wheels = sorted(Path(folder).glob("transformers-*.whl"))
            if not failure and wheels:
                return _read_wheel(wheels[0], place)
            failure = failure or "pip brought no wheel"
    raise SwapError(
        f"the original of {place.file} is gone, and pip could not bring the wheel of transformers "
        f"{place.version} ({failure}); {advice(place)}"
    )


def _download(command: list[str], folder: str) -> str:
    """Run pip and return why it failed, or ""."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=folder, timeout=TIMEOUT_S,
            env=environment_of_target(),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    lines = (done.stderr.strip() or "no message").splitlines()
    return next((line for line in reversed(lines) if "ERROR" in line), lines[-1])


def _read_wheel(wheel: Path, place: Place) -> bytes:
    """Return a file of a wheel, checked against the wheel's own record."""
    member = _member(place)
    row = re.compile(rf"^{re.escape(member)},sha256=([\w-]+)", re.MULTILINE)
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(member)
            (record,) = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
            found = row.search(archive.read(record).decode())
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise SwapError(f"{wheel.name} can't be read ({error}); {advice(place)}") from error
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    if found is None or found[1].rstrip("=") != digest:
        raise SwapError(f"{wheel.name} is damaged (its checksum differs); {advice(place)}")
    return content
