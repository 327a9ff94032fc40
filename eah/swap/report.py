"""Describe the state of a place, its problems, and the commands that fix them."""

from __future__ import annotations

import os

from eah.settings import settings_from_environment
from eah.swap.content import why_unsupported
from eah.swap.place import Place
from eah.swap.states import Status, status


def describe(place: Place, found: Status | None = None) -> str:
    """Return the state of a place, and the settings that a later run would use.

    Args:
        place: The place.
        found: Result of `status`; None to compute it.
    """
    found = found or status(place)
    lines = [f"{place.title}: {place.file} is {_name(place, found)}"]
    if found.kind == "ours":
        lines += [
            _reach(place),
            "a later run started with this environment would use: "
            f"{settings_from_environment(os.environ)}",
        ]
    if found.kind == "ours" and found.kept == "unverified":
        lines.append(
            f"the original is {place.original.name}, by its content; no record or note names it"
        )
    if folder := place.linked_folder():
        lines.append(f"it is reached through a link; all links to {folder} are affected")
    return "\n".join([*lines, *(f"wrong: {problem}" for problem in problems(place, found))])


def problems(place: Place, found: Status) -> list[str]:
    """Return what is wrong, each with what to do about it."""
    install, restore = place.command("install"), place.command("restore")
    if found.kind == "missing":
        return [f"code that imports {place.file.name} fails; run: {restore}"]
    if found.kind == "other":
        reason = why_unsupported(place, found.content.decode(errors="replace"))
        if reason and place.package is None:
            return [reason]
        keep = f"keep it as the original and swap: {install} --force"
        advice = choice(place) if found.rival else reason or keep
        return [f"it was edited, or is another project's; {advice}"]
    if found.rival:
        return [f"{place.original.name} next to it is another file; {choice(place)}"]
    if found.kind == "original" and found.left:
        remedy = f"move it to {place.aside_path.name}" if found.unique else "remove what is left"
        return [
            f"{found.left} is left over from an earlier swap, and EAH is not in use (an update of "
            f"{place.source} replaces its file); {remedy}: {restore}, or swap again: {install}"
        ]
    if found.kind == "original":
        return []
    wrong = []
    if not found.usable:
        keep = "" if found.kept in ("none", "ours") else f" (keep that: {install} --force)"
        wrong.append(f"{kept_problem(place, found)}; get the original back: {install}{keep}")
    elif not found.current:
        wrong.append(f"it was edited, or is of another build of EAH; put this one there: {install}")
    return wrong


def kept_problem(place: Place, found: Status) -> str:
    """Return what is wrong with the kept original."""
    name = place.original.name
    other = (
        "another commit of the repository"
        if place.package is None
        else f"another transformers ({found.note.version if found.note else 'unknown'}), not of "
        f"this {place.version or 'of unknown version'}"
    )
    return {
        "none": f"the original, {name}, is missing",
        "ours": f"{name} is EAH's file, not the original",
        "edited": f"{name} is not what was kept (its checksum differs)",
        "foreign": f"{name} is not the original (its checksum differs)"
        if place.recorded
        else f"{name} does not look like the original",
        "another version": f"{name} is of {other}",
    }[found.kept]


def choice(place: Place) -> str:
    """Return the advice where only the user knows which of two files is wanted."""
    return (
        f"delete the one of {place.file.name} and {place.original.name} that you don't want, and "
        "run this again"
    )


def _name(place: Place, found: Status) -> str:
    if found.kind == "original" and not found.verified:
        return f"{place.owner}, by its content (nothing records it)"
    return {
        "original": place.owner,
        "ours": f"EAH {found.version}" + ("" if found.current else " (not this version's file)"),
        "other": f"neither {place.owner} nor EAH's",
        "missing": "missing",
    }[found.kind]


def _reach(place: Place) -> str:
    if place.package is None:
        return "every model that this repository builds with it is affected"
    return f"every {place.family}-based model that runs on this transformers is affected"
