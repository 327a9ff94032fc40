"""Replace the original by our file and restore it, without ever losing the original."""

from __future__ import annotations

from typing import Final

from eah.drop_in.names import VERSION
from eah.swap.content import drop_in_for, validate_supported
from eah.swap.files import (
    keep_original,
    leftovers,
    remove_bytecode,
    replace_file,
    set_aside,
)
from eah.swap.lock import hold_lock
from eah.swap.place import Place, SwapError
from eah.swap.repair import Say, fetch_original
from eah.swap.report import choice, kept_problem
from eah.swap.states import Status, status

NOTHING: Final = ("none", "ours")  # nothing to lose


def _ignore(text: str) -> None:
    """Say nothing."""


def install(place: Place, *, force: bool = False, say: Say = _ignore) -> str:
    """Install our file, keep the original next to it, and return what was done.

    Args:
        place: Where.
        force: Treat a file of unknown origin as the original.
        say: Called with progress messages.
    Raises:
        SwapError: If another file is there (unless forced), the family isn't supported, or the
            original of an earlier install is gone and can't be recovered.
        OSError: If the folder can't be written.
    """
    found = status(place)
    if found.current and found.usable:  # also in a read-only install
        return f"{place.file} is EAH {found.version} already"
    if found.kind == "missing":
        _validate_folder(place)
    with hold_lock(place):
        return _install(place, status(place), force=force, say=say)


def restore(place: Place, *, force: bool = False, say: Say = _ignore) -> str:
    """Restore the original, remove leftovers of an interrupted swap, and return what was done.

    Args:
        place: Where.
        force: Restore any kept file.
        say: Called with progress messages.
    Raises:
        SwapError: If the original is gone or damaged and can't be recovered.
        OSError: If the folder can't be written.
    """
    found = status(place)
    if found.kind in ("original", "other") and not leftovers(place):
        return f"{place.file} is not EAH's; nothing to restore"
    _validate_folder(place)
    with hold_lock(place):
        return _restore(place, status(place), force=force, say=say)


def _install(place: Place, found: Status, *, force: bool, say: Say) -> str:
    _validate_exchange(place, found, force=force)
    if found.current and found.usable:
        return f"{place.file} is EAH {found.version} already"
    done = f"installed EAH {VERSION} as {place.file}; the original is {place.original.name}"
    if found.kind == "ours" and found.usable:
        original = place.original.read_bytes()
    elif found.kind == "ours" and force and found.kept not in NOTHING:
        original = place.original.read_bytes()
        validate_supported(place, original)
        keep_original(place, original)
    elif found.kind == "ours":
        say(kept_problem(place, found))
        original = fetch_original(place, say)
        validate_supported(place, original)
        _set_aside(place, found, say)
        keep_original(place, original)
        done = f"got the original back as {place.original.name}; {place.file} is EAH {VERSION}"
    else:
        original = found.content
        if found.unique:
            _set_aside(place, found, say)
        keep_original(place, original)
    ours = drop_in_for(place, original).encode()
    if ours != found.content:
        replace_file(place.file, ours, like=place.file)
    remove_bytecode(place)
    return done


def _restore(place: Place, found: Status, *, force: bool, say: Say) -> str:
    swapped = found.kind in ("ours", "missing")
    if swapped and (found.usable or (force and found.kept not in NOTHING)):
        place.original.replace(place.file)
    elif swapped:
        say(kept_problem(place, found))
        try:
            original = fetch_original(place, say)
        except SwapError as error:
            hint = "" if found.kept in NOTHING else "; --force puts back what is kept"
            raise SwapError(f"{error}{hint}") from error
        _set_aside(place, found, say)
        replace_file(place.file, original, like=place.file)
    elif found.rival:
        raise SwapError(f"{place.file} is not what {place.original.name} keeps; {choice(place)}")
    elif found.unique:
        _set_aside(place, found, say)
    removed = leftovers(place)
    for left in removed:
        left.unlink(missing_ok=True)
    remove_bytecode(place)
    if swapped:
        return f"restored {place.file}"
    names = ", ".join(left.name for left in removed)
    done = f"removed what was left next to it: {names}" if names else "nothing to restore"
    return f"{place.file} is not EAH's; {done}"


def _validate_exchange(place: Place, found: Status, *, force: bool) -> None:
    """Refuse to replace a file that is not known to be the original, or not supported."""
    if found.kind == "missing":
        raise SwapError(f"{place.file} is missing; run: {place.command('restore')}")
    if found.kind == "ours":
        return
    if found.rival:
        raise SwapError(f"{place.file} is not what {place.original.name} keeps; {choice(place)}")
    validate_supported(place, found.content)
    if found.kind == "other" and not force:
        raise SwapError(
            f"{place.file} is neither {place.owner} nor EAH's; pass --force to keep it as the "
            "original and put EAH's in its place"
        )


def _validate_folder(place: Place) -> None:
    """Refuse a folder that is gone."""
    if not place.file.parent.is_dir():
        raise SwapError(f"{place.file.parent} is missing; get {place.source} again")


def _set_aside(place: Place, found: Status, say: Say) -> None:
    """Keep the previously kept file under another name, unless it is ours."""
    if found.kept not in NOTHING:
        say(f"what was kept before is {set_aside(place)}")
