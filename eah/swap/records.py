"""Read what pip and conda recorded about a modeling file of transformers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

from eah.drop_in.names import ORIGINAL_SUFFIX

Value = TypeVar("Value")

VERSION: Final = re.compile(r"""^__version__ = ["']([^"']+)["']""", re.MULTILINE)
RECORDS: Final = "transformers-*.dist-info/RECORD"
DIGEST: Final = r"[A-Za-z0-9_-]{43}"  # of SHA-256 in base64, as RECORD has it
METADATA: Final = re.compile(r"transformers-(.+?)(?:-py[\d.]+)?\.(?:dist|egg)-info")


def version_in(package: Path) -> str | None:
    """Return the version that a package's own text names, without importing it."""
    return version_of_package(
        (package / "__init__.py").read_text(encoding="utf-8", errors="replace")
    )


def version_of_package(text: str) -> str | None:
    """Return the version that the text of transformers/__init__.py names."""
    found = VERSION.search(text)
    return found and found[1]


def recorded_version(package: Path) -> str | None:
    """Return the version that the metadata next to a package names."""
    for metadata in sorted(package.parent.glob("transformers-*-info")):
        if found := METADATA.fullmatch(metadata.name):
            return found[1]
    return None


def recorded_checksum(package: Path, family: str, version: str | None) -> tuple[str, str] | None:
    """Return the version and the SHA-256 that the original of a family was installed with.

    Args:
        package: Folder of the package transformers.
        family: Such as "llama".
        version: Version of the package; records of others, left by an upgrade, don't count. None
            if it is not known.
    """
    name = f"models/{family}/modeling_{family}"
    # A wheel built from a tree with EAH's file records both.
    for file in (f"{name}{ORIGINAL_SUFFIX}.py", f"{name}.py"):
        for recorded, checksum in _checksums(package, file):
            if version in (None, recorded):
                return recorded, checksum
    return None


def _checksums(package: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield the version and the SHA-256 of each record of a file."""
    row = re.compile(rf"^transformers/{re.escape(name)},sha256=({DIGEST})(?![\w-])", re.MULTILINE)
    sites = dict.fromkeys((package.parent, package.resolve().parent))
    for record in [path for site in sites for path in sorted(site.glob(RECORDS))]:
        if found := row.search(record.read_text(encoding="utf-8", errors="replace")):
            version = record.parent.name.removeprefix("transformers-").removesuffix(".dist-info")
            yield version, base64.urlsafe_b64decode(f"{found[1]}=").hex()
    for prefix in package.parents:
        for path in sorted(prefix.glob("conda-meta/transformers-*.json")):
            yield from _conda_checksums(path, f"site-packages/transformers/{name}")


def _conda_checksums(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield the checksum that a conda package was installed with."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return
    version = _get(meta, "version", str)
    if _get(meta, "name", str) != "transformers":
        return
    for entry in _get(_get(meta, "paths_data", dict), "paths", list) or ():
        checksum = _get(entry, "sha256_in_prefix", str) or _get(entry, "sha256", str)
        if checksum and (_get(entry, "_path", str) or "").endswith(name):
            yield version or "", checksum


def _get(entry: object, key: str, kind: type[Value]) -> Value | None:
    """Return a value of a JSON object; None if there is none of that kind."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, kind) else None
