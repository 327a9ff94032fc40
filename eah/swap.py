"""Put EAH's modeling file in the place of transformers' own, and take it back.

    python -m eah.swap install [--model qwen2] [--python PATH | --site-packages PATH] [--force]
    python -m eah.swap status
    python -m eah.swap restore

The original stays beside it, byte for byte, as modeling_llama_original.py, with its checksum. Each
step replaces one file as a whole: whenever it is interrupted, what is there works.
"""

from __future__ import annotations

import argparse
import ast
import base64
import csv
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eah import modeling_llama_eah as drop_in
from eah.errors import EAHError

BAD_INPUT: Final = 2
FAMILY: Final = "llama"
SOURCE: Final = Path(drop_in.__file__)
VERSION_LINE: Final = re.compile(r'^VERSION: Final = "(.+)"$', re.MULTILINE)
FIND: Final = (
    "import importlib.util as u; s = u.find_spec('transformers'); print(s.origin if s else '')"
)


class SwapError(EAHError):
    """The file can't be swapped as things are."""


@dataclass(frozen=True, slots=True)
class Place:
    """A modeling file of a transformers install.

    Attributes:
        family: Model family, such as "llama".
        package: Folder of the package transformers.
    """

    family: str
    package: Path

    @property
    def file(self) -> Path:
        """The file that transformers imports."""
        return self.package / "models" / self.family / f"modeling_{self.family}.py"

    @property
    def original(self) -> Path:
        """Where the original is while ours is in its place."""
        return self.file.with_name(f"{self.file.stem}{drop_in.ORIGINAL_SUFFIX}.py")

    @property
    def checksum(self) -> Path:
        """The original's SHA-256, in the format of sha256sum."""
        return self.original.with_suffix(".sha256")

    @property
    def version(self) -> str | None:
        """Version of transformers, from its metadata; None in a checkout."""
        info = self._info()
        if info is None:
            return None
        return info.name.removeprefix("transformers-").removesuffix(".dist-info")

    def recorded(self) -> str | None:
        """Return the SHA-256 that transformers was installed with; None in a checkout."""
        info = self._info()
        if info is None or not (info / "RECORD").is_file():
            return None
        name = self.file.relative_to(self.package.parent).as_posix()
        with (info / "RECORD").open(newline="", encoding="utf-8") as rows:
            found = next((row[1] for row in csv.reader(rows) if row and row[0] == name), "")
        encoded = found.removeprefix("sha256=")
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).hex() or None

    def _info(self) -> Path | None:
        return next(iter(sorted(self.package.parent.glob("transformers-*.dist-info"))), None)


@dataclass(frozen=True, slots=True)
class Status:
    """What stands in the place.

    Attributes:
        kind: "original", "ours", "other" (neither), or "missing".
        version: Version of ours, if it is ours.
        current: Whether it is ours exactly as installed from here.
    """

    kind: str
    version: str | None = None
    current: bool = False


def find(*, family: str, python: Path | None = None, site_packages: Path | None = None) -> Place:
    """Find the modeling file of a family in a transformers install.

    Args:
        family: Such as "llama" or "qwen2".
        python: Interpreter whose transformers is meant; None for the running one.
        site_packages: Folder that holds the package instead.
    Raises:
        SwapError: If there is none, or it is of a kind that can't be swapped.
    """
    if site_packages is not None:
        origin = str(site_packages / "transformers" / "__init__.py")
        where = str(site_packages)
    elif python is not None:
        origin, where = _origin_of(python), str(python)
    else:
        spec = importlib.util.find_spec("transformers")
        origin, where = str(spec.origin) if spec is not None else "", sys.executable
    if not origin:
        raise SwapError(f"{where} has no transformers; install it there first")
    package = Path(origin).parent
    if not package.is_dir():
        zipped = any(parent.is_file() for parent in package.parents)
        reason = "it is in a zip file; unpack it" if zipped else "there is no such folder"
        raise SwapError(f"transformers at {package}: {reason}")
    place = Place(family, package)
    if not place.file.parent.is_dir():
        raise SwapError(f"transformers {place.version} has no model family {family!r}")
    if place.recorded() is None:
        raise SwapError(
            f"transformers at {package} is a checkout (editable), or its records are incomplete; "
            f"copy {SOURCE.name} there yourself, with the original beside it as "
            f"{place.original.name}"
        )
    return place


def status(place: Place) -> Status:
    """Say what stands in a place."""
    if not place.file.is_file():
        return Status("missing")
    content = place.file.read_bytes()
    if _sha256(content) == place.recorded():
        return Status("original")
    version = VERSION_LINE.search(content.decode("utf-8", errors="replace"))
    if version is None or b"SharingAttention" not in content:
        return Status("other")
    return Status("ours", version.group(1), content == drop_in_for(place).encode())


def install(place: Place, *, force: bool = False) -> str:
    """Put ours in the place, the original beside it; return what was done.

    Raises:
        SwapError: If something else is in the place (unless forced), the family can't be supported,
            or the folder can't be written.
    """
    found = status(place)
    if found.kind == "other" and not force:
        raise SwapError(
            f"{place.file} is neither transformers' own nor EAH's; pass --force to keep it as the "
            "original and put EAH's in its place"
        )
    if found.kind == "missing":
        raise SwapError(f"{place.file} is missing; reinstall transformers")
    if found.current:
        return f"{place.file} is EAH {found.version} already"
    with _writing(place):
        if found.kind != "ours":
            content = place.file.read_bytes()
            _check_supported(place, content)
            _replace(place.original, content)
            _replace(place.checksum, f"{_sha256(content)}  {place.original.name}\n".encode())
        _replace(place.file, drop_in_for(place).encode())
    return f"installed EAH {drop_in.VERSION} as {place.file}; the original is {place.original.name}"


def restore(place: Place) -> str:
    """Put the original back; return what was done.

    Raises:
        SwapError: If the original is gone or damaged, or the folder can't be written.
    """
    found = status(place)
    if found.kind == "original":
        _remove_kept(place)  # left by an install or a restore that was interrupted
        return f"{place.file} is transformers' own already"
    if not place.original.is_file():
        raise SwapError(f"{place.original} is missing; reinstall transformers {place.version}")
    content = place.original.read_bytes()
    kept = place.checksum.read_text().split()[0] if place.checksum.is_file() else place.recorded()
    if _sha256(content) != kept:
        raise SwapError(
            f"{place.original} is not what was kept (its checksum differs); reinstall transformers "
            f"{place.version}"
        )
    with _writing(place):
        _replace(place.file, content)
    _remove_kept(place)
    return f"restored {place.file}"


def drop_in_for(place: Place) -> str:
    """Return the text of our file for a family.

    The names that transformers looks for in the text are those of the family it replaces.
    """
    text = SOURCE.read_text(encoding="utf-8")
    if place.family == FAMILY:
        return text
    original = place.original if place.original.is_file() else place.file
    names = exported_names(original.read_text(encoding="utf-8"))
    return text.replace(drop_in.LAZY_EXPORTS, lazy_exports(names))


def exported_names(original: str) -> list[str]:
    """Return the names in an original file's `__all__`; before 4.48 it has none and needs none."""
    for node in ast.parse(original).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return sorted(ast.literal_eval(node.value))
    return []


def lazy_exports(names: Sequence[str]) -> str:
    """Return the text by which transformers finds names in our file (see LAZY_EXPORTS there)."""
    lines = []
    for decorator in ("export", "requires"):  # until 4.48, since 4.49
        lines += [f'@{decorator}(backends=("torch",))', "class SharingAttention("]
        for name in names:
            lines += [f'@{decorator}(backends=("torch", "tokenizers"))', f"class {name}("]
    return "\n" + "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="eah", description="Put EAH's modeling file into a transformers install."
    )
    parser.add_argument("action", choices=("install", "status", "restore"))
    parser.add_argument("--model", default=FAMILY, help="family of the file (llama)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--python", type=Path, help="interpreter whose transformers is meant")
    where.add_argument("--site-packages", type=Path, help="folder that holds transformers")
    parser.add_argument(
        "--force", action="store_true", help="install over a file of unknown origin"
    )
    given = parser.parse_args(arguments)
    try:
        place = find(family=given.model, python=given.python, site_packages=given.site_packages)
        if given.action == "install":
            print(install(place, force=given.force))
        elif given.action == "restore":
            print(restore(place))
        print(describe(place))
    except (EAHError, ValueError) as error:
        print(f"eah: error: {error}", file=sys.stderr)
        return BAD_INPUT
    return 0


def describe(place: Place) -> str:
    """Return what stands in a place, and the settings that it would read here."""
    found = status(place)
    what = {
        "original": "transformers' own",
        "ours": f"EAH {found.version}" + ("" if found.current else " (not this version's file)"),
        "other": "neither transformers' own nor EAH's",
        "missing": "missing",
    }[found.kind]
    lines = [f"transformers {place.version}: {place.file} is {what}"]
    if found.kind == "ours":
        lines.append(f"settings here: {drop_in.settings_from_environment(os.environ)}")
    return "\n".join(lines)


def _origin_of(python: Path) -> str:
    """Return where another interpreter would find transformers."""
    try:
        found = subprocess.run([python, "-c", FIND], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SwapError(f"--python {python} can't be run: {error}") from error
    return found.stdout.strip()


def _check_supported(place: Place, content: bytes) -> None:
    """Refuse a family whose attention can't be shared through this seam."""
    text = content.decode("utf-8")
    models = [name for name in re.findall(r"^class (\w+Model)\b", text, re.MULTILINE)
              if not name.endswith("PreTrainedModel")]  # fmt: skip
    if len(models) != 1:
        raise SwapError(
            f"{place.file.name} defines {len(models)} models ({', '.join(models) or 'none'}); "
            "EAH's file replaces one that defines a single decoder, as llama, mistral and qwen2 do"
        )
    if "self.self_attn" not in text or not any(
        name in text for name in ("softmax(", "scaled_dot_product_attention", "ALL_ATTENTION")
    ):
        raise SwapError(
            f"the attention of {place.file.name} uses neither softmax nor "
            "scaled_dot_product_attention, so one head's map can't be shared"
        )


def _remove_kept(place: Place) -> None:
    """Remove the copy of the original, and its checksum."""
    with _writing(place):
        place.original.unlink(missing_ok=True)
        place.checksum.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    """Replace a file as a whole, so that a crash leaves the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _writing(place: Place) -> Iterator[None]:
    """Turn an operating system's refusal to write into one sentence."""
    try:
        yield
    except OSError as error:
        raise SwapError(
            f"{place.file.parent} can't be written ({error.strerror}); run this as the owner of "
            "that install, or install transformers in an environment of your own"
        ) from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
