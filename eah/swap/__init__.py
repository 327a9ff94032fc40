"""Build EAH's modeling file, put it in the place of transformers' own, and take it back.

    python -m eah.swap install [--model qwen2] [--python PATH | --site-packages PATH] [--force]
    python -m eah.swap status
    python -m eah.swap restore
    python -m eah.swap build [--check]      modeling_llama_eah.py from the files of eah/

The original stays beside it, byte for byte, as modeling_llama_original.py, with its checksum. Each
step replaces one file as a whole: whenever it is interrupted, what is there works.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eah.build import DROP_IN as SOURCE
from eah.build import is_current, write
from eah.drop_in.names import LAZY_EXPORTS, ORIGINAL_SUFFIX, VERSION
from eah.errors import EAHError
from eah.settings import settings_from_environment

STALE: Final = 1
BAD_INPUT: Final = 2
FAMILY: Final = "llama"
TEMPORARY: Final = ".eah"
VERSION_LINE: Final = re.compile(r'^VERSION: Final = "(.+)"$', re.MULTILINE)
EXPORTS: Final = re.compile(r"^__all__ = \[(.*?)\]", re.MULTILINE | re.DOTALL)
MODEL: Final = re.compile(r"^(class (\w+Model)\b.*?)(?=^class |\Z)", re.MULTILINE | re.DOTALL)
ATTENTIONS: Final = ("softmax(", "scaled_dot_product_attention", "ALL_ATTENTION")
FIND: Final = (  # `-c` would look in the current folder first
    "import importlib.util as u, sys; sys.path = [folder for folder in sys.path if folder];"
    "s = u.find_spec('transformers'); print(s.origin if s else '')"
)
OWNER: Final = "; run this as the owner of that transformers, or install one of your own"


class SwapError(EAHError):
    """The file can't be swapped as things are."""


@dataclass(frozen=True, slots=True)
class Place:
    """A modeling file of a transformers install.

    Attributes:
        family: Model family, such as "llama".
        package: Folder of the package transformers.
        version: Version of transformers.
        recorded: SHA-256 that the file was installed with.
    """

    family: str
    package: Path
    version: str
    recorded: str

    @property
    def file(self) -> Path:
        """The file that transformers imports."""
        return self.package / "models" / self.family / f"modeling_{self.family}.py"

    @property
    def original(self) -> Path:
        """Where the original is while ours is in its place."""
        return self.file.with_name(f"{self.file.stem}{ORIGINAL_SUFFIX}.py")

    @property
    def checksum(self) -> Path:
        """The original's SHA-256, in the format of sha256sum."""
        return self.original.with_suffix(".sha256")


@dataclass(frozen=True, slots=True)
class Status:
    """What stands in the place.

    Attributes:
        kind: "original", "ours", "other" (neither), or "missing".
        content: What the file holds.
        version: Version of ours, if it is ours.
        current: Whether it is ours exactly as installed from here.
    """

    kind: str
    content: bytes = b""
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
    elif python is not None:
        origin = _origin_of(python)
    else:
        spec = importlib.util.find_spec("transformers")
        origin = str(spec.origin) if spec else ""  # "None" for a folder without __init__.py
    package = Path(origin).parent
    if any(parent.is_file() for parent in package.parents):
        raise SwapError(f"transformers at {package} is in a zip file; install it as a folder")
    if not Path(origin).is_file():
        raise SwapError(
            f"{site_packages or python or sys.executable} has no transformers; install it there, "
            "or name another place with --python or --site-packages"
        )
    name = f"models/{family}/modeling_{family}.py"
    row = re.compile(rf"^transformers/{re.escape(name)},sha256=([\w-]+)", re.MULTILINE)
    for record in sorted(package.parent.glob("transformers-*.dist-info/RECORD")):
        if found := row.search(record.read_text(encoding="utf-8")):
            version = record.parent.name.removeprefix("transformers-").removesuffix(".dist-info")
            return Place(family, package, version, base64.urlsafe_b64decode(f"{found[1]}=").hex())
    if not (package / name).is_file():
        raise SwapError(
            f"transformers at {package} has no {name}; --model is the name of one of its folders "
            "in models/, such as llama or qwen2"
        )
    raise SwapError(
        f"transformers at {package} is a checkout (editable), or its records are incomplete; copy "
        f"{SOURCE.name} over {name}, with the original beside it as modeling_{family}_original.py"
    )


def status(place: Place) -> Status:
    """Say what stands in a place."""
    if not place.file.is_file():
        return Status("missing")
    content = place.file.read_bytes()
    if _sha256(content) == place.recorded:
        return Status("original", content)
    version = VERSION_LINE.search(content.decode(errors="replace"))
    if version is None or b"SharingAttention" not in content:
        return Status("other", content)
    return Status("ours", content, version.group(1), content == drop_in_for(place).encode())


def install(place: Place, *, force: bool = False) -> str:
    """Put ours in the place, the original beside it; return what was done.

    Raises:
        SwapError: If something else is in the place (unless forced), the family isn't supported,
            or the original of an earlier install is gone.
        OSError: If the folder can't be written.
    """
    found = status(place)
    if found.kind == "missing":
        raise SwapError(f"{place.file} is missing; restore it, or reinstall transformers")
    if found.kind == "other" and not force:
        raise SwapError(
            f"{place.file} is neither transformers' own nor EAH's; pass --force to keep it as the "
            "original and put EAH's in its place"
        )
    if found.kind == "ours":
        _check_kept(place)
    else:
        _check_supported(place, found.content.decode(errors="replace"))
    if found.current:
        return f"{place.file} is EAH {found.version} already"
    if found.kind != "ours":
        checksum = f"{_sha256(found.content)}  {place.original.name}\n"
        _replace(place.original, found.content, like=place.file)
        _replace(place.checksum, checksum.encode(), like=place.file)
    _replace(place.file, drop_in_for(place).encode(), like=place.file)
    _remove_bytecode(place)
    return f"installed EAH {VERSION} as {place.file}; the original is {place.original.name}"


def restore(place: Place) -> str:
    """Put the original back, and remove what an interrupted swap left; return what was done.

    Raises:
        SwapError: If the original is gone or damaged.
        OSError: If the folder can't be written.
    """
    found = status(place)
    swapped = found.kind in ("ours", "missing")
    if swapped:
        _check_kept(place)
    elif (
        found.kind == "other"
        and place.original.is_file()
        and place.original.read_bytes() != found.content
    ):
        raise SwapError(
            f"{place.file} is neither EAH's nor what {place.original.name} keeps; delete the "
            "one of them that you don't want, and run this again"
        )
    if swapped:
        place.original.replace(place.file)
    temporary = place.file.parent.glob(f".{place.file.stem}*{TEMPORARY}")
    for left in (place.original, place.checksum, *temporary):
        left.unlink(missing_ok=True)
    _remove_bytecode(place)
    return f"restored {place.file}" if swapped else f"{place.file} is not EAH's, nothing to restore"


def drop_in_for(place: Place) -> str:
    """Return the text of our file for a family.

    The names that transformers looks for in the text are those of the family it replaces.
    """
    text = SOURCE.read_text(encoding="utf-8")
    if place.family == FAMILY:
        return text
    original = place.original if place.original.is_file() else place.file
    exports = EXPORTS.search(original.read_text(encoding="utf-8", errors="replace"))
    names = re.findall(r"\w+", exports[1]) if exports else []  # none before 4.48, and none needed
    return text.replace(LAZY_EXPORTS, lazy_exports(sorted(names)))


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
        prog="eah",
        description="Swap EAH's file into transformers.",
        epilog="eah check MODEL_FOLDER says what EAH can do with a model (eah check --help)",
    )
    parser.add_argument("action", choices=("install", "status", "restore", "build"))
    parser.add_argument("--model", default=FAMILY, help="family of the file (llama)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--python", type=Path, help="interpreter whose transformers is meant")
    where.add_argument("--site-packages", type=Path, help="folder that holds transformers")
    parser.add_argument("--force", action="store_true", help="install over a file of any origin")
    parser.add_argument("--check", action="store_true", help="build: exit 1 if the file is stale")
    given = parser.parse_args(arguments)
    if given.check and given.action != "build":
        parser.error(f"--check goes with build, not with {given.action}; use status to look only")
    if given.action == "build" and (given.python or given.site_packages or given.force):
        parser.error(
            "build writes EAH's own file; --python, --site-packages and --force go with install"
        )
    try:
        if given.action == "build":
            return _build(check=given.check)
        if given.action != "restore":
            settings_from_environment(os.environ)
        place = find(family=given.model, python=given.python, site_packages=given.site_packages)
        if given.action == "install":
            print(install(place, force=given.force))
        elif given.action == "restore":
            print(restore(place))
        print(describe(place))
    except (EAHError, OSError, ValueError) as error:
        print(f"eah: error: {error}{OWNER if isinstance(error, OSError) else ''}", file=sys.stderr)
        return BAD_INPUT
    return 0


def _build(*, check: bool) -> int:
    """Write the drop-in file, or say whether it is what its sources give."""
    if check and not is_current():
        print(f"{SOURCE.name} is not what its sources give; run python -m eah.swap build")
        return STALE
    if not check:
        write()
    print(f"{SOURCE.name} is current")
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
        if not place.original.is_file():
            lines.append(f"{place.original.name} is missing; reinstall transformers")
        lines.append(f"settings here: {settings_from_environment(os.environ)}")
    return "\n".join(lines)


def _origin_of(python: Path) -> str:
    """Return where another interpreter would find transformers."""
    try:
        found = subprocess.run([python, "-c", FIND], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SwapError(f"--python {python} can't be run ({error}); name an interpreter") from error
    return (found.stdout.splitlines() or [""])[-1]


def _check_kept(place: Place) -> None:
    """Refuse to go on with an original that is not what was kept."""
    advice = f"reinstall transformers {place.version}"
    if not place.original.is_file():
        raise SwapError(f"{place.original} is missing; {advice}")
    kept = place.checksum.read_bytes()[:64] if place.checksum.is_file() else b""
    if _sha256(place.original.read_bytes()) not in (place.recorded, kept.decode(errors="replace")):
        raise SwapError(f"{place.original} is not what was kept (its checksum differs); {advice}")


def _check_supported(place: Place, text: str) -> None:
    """Refuse a family whose attention can't be shared through this seam."""
    models = [found for found in MODEL.findall(text) if not found[1].endswith("PreTrainedModel")]
    if len(models) != 1 or "self.layers = " not in models[0][0] or "self.self_attn" not in text:
        names = ", ".join(name for _, name in models) or "no model"
        raise SwapError(
            f"{place.file.name} defines {names}; EAH's file replaces one that defines a single "
            "model, a stack of decoder layers, as llama, mistral and qwen2 do"
        )
    if not any(attention in text for attention in ATTENTIONS):
        raise SwapError(
            f"the attention of {place.file.name} has neither softmax nor "
            "scaled_dot_product_attention, which EAH's file needs to share a head; use llama"
        )


def _replace(path: Path, content: bytes, *, like: Path) -> None:
    """Replace a file as a whole, with another's permissions: a crash leaves the old or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(like, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_bytecode(place: Place) -> None:
    """Remove compiled files, which some installs use without a look at the source's date."""
    for compiled in place.file.parent.glob(f"__pycache__/{place.file.stem}*.pyc"):
        compiled.unlink(missing_ok=True)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
