"""The state of a place: which file is there, and whether the kept original is sound."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from eah.swap.content import drop_in_for, is_ours, looks_original, same_text, sha256, version_of
from eah.swap.place import Place

NOTE: Final = re.compile(
    r"([0-9a-f]{64})  [^\n]+\n(?:# beside transformers (\S+), recorded (\S+)\n)?"
)
UNKNOWN: Final = "unknown"
READINGS: Final = 10
# Kept files that may be restored: as recorded, or judged by content if nothing records them.
USABLE: Final = ("sound", "unverified")


class Note(NamedTuple):
    """The swap's note about the original that it kept."""

    checksum: str
    version: str
    recorded: str


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a place.

    Attributes:
        kind: "original", "ours", "other" (neither), or "missing".
        content: Content of the file.
        version: Version of EAH, if it is ours.
        current: Whether it is exactly this EAH's file, up to line endings.
        verified: Whether a record shows that it is the original; False if only its content does.
        kept: What is kept as the original: "none", "sound", "unverified" (nothing records it),
            "ours", "edited", "another version", or "foreign" (not what the record says).
        same: Whether the kept file equals the file.
        recorded: Whether a record, or a note that repeats one, shows that the kept file is an
            original, which could be downloaded again.
        left: Name of a file that a swap keeps next to the file; "" if there is none.
        note: The note next to the kept file.
    """

    kind: str
    content: bytes = b""
    version: str | None = None
    current: bool = False
    verified: bool = False
    kept: str = "none"
    same: bool = False
    recorded: bool = False
    left: str = ""
    note: Note | None = None

    @property
    def usable(self) -> bool:
        """Whether the kept file can be restored."""
        return self.kept in USABLE

    @property
    def rival(self) -> bool:
        """Whether only the user can decide between the file and the kept one."""
        if self.same or self.kept in ("none", "ours"):
            return False
        leftover = self.verified or self.kept == "another version"
        return self.kind == "other" or (self.kind == "original" and not leftover)

    @property
    def unique(self) -> bool:
        """Whether the kept file may exist nowhere else, such as an edited file."""
        return not (self.same or self.recorded or self.kept in ("none", "ours"))


def status(place: Place) -> Status:
    """Return the state of a place, without changing or downloading anything.

    Another process may be changing it, so it is read until two reads agree.
    """
    found = _read_status(place)
    for _ in range(READINGS):
        before, found = found, _read_status(place)
        if found == before:
            break
    return found


def _read_status(place: Place) -> Status:
    original, note, content = _read(place.original), read_note(place), _read(place.file)
    found = _judge(place, original, note, content)
    recorded = original is not None and _is_recorded(place, original, note)
    paths = [path for path in (place.original, place.checksum) if path.is_file()]
    left = paths[0].name if paths else ""
    return replace(found, recorded=recorded, left=left, note=note)


def _judge(
    place: Place, original: bytes | None, note: Note | None, content: bytes | None
) -> Status:
    """Classify the file and the kept original."""
    kept = _kept(place, original, note)
    if content is None:
        return Status("missing", kept=kept)
    if is_ours(content):
        current = same_text(content, drop_in_for(place, original or b"").encode())
        return Status("ours", content, version_of(content), current, kept=kept)
    same = original == content
    known = place.recorded
    if not known and note is not None and _is_beside(note, place):
        known = note.checksum
    if known:
        kind = "original" if sha256(content) == known else "other"
        return Status(kind, content, verified=True, kept=kept, same=same)
    kind = "original" if looks_original(place, content) else "other"
    return Status(kind, content, kept=kept, same=same)


def read_note(place: Place) -> Note | None:
    """Return the note next to the kept original; None if it is missing or unreadable."""
    found = NOTE.match((_read(place.checksum) or b"").decode(errors="replace"))
    return Note(found[1], found[2] or "", found[3] or "") if found else None


def note_of(place: Place, content: bytes) -> bytes:
    """Return the note to write next to an original."""
    line = f"# beside transformers {place.version or UNKNOWN}, recorded {place.recorded or UNKNOWN}"
    return f"{sha256(content)}  {place.original.name}\n{line}\n".encode()


def _kept(place: Place, content: bytes | None, note: Note | None) -> str:
    """Classify the kept original (see Status)."""
    if content is None:
        return "none"
    if is_ours(content):
        return "ours"
    checksum = sha256(content)
    if checksum == place.recorded:
        return "sound"
    if note is None:
        unverified = not place.recorded and looks_original(place, content)
        return "unverified" if unverified else "foreign"
    if not _is_beside(note, place):
        return "another version"
    return "sound" if checksum == note.checksum else "edited"


def _is_recorded(place: Place, content: bytes, note: Note | None) -> bool:
    """Return whether the kept file is recorded as an original, of this version or another."""
    checksum = sha256(content)
    return checksum == place.recorded or (
        note is not None and checksum == note.checksum == note.recorded
    )


def _read(path: Path) -> bytes | None:
    """Return the content of a file, which another process may be removing."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_beside(note: Note, place: Place) -> bool:
    """Return whether a note was written for the transformers that is there now."""
    return note.version == (place.version or UNKNOWN) and (
        note.recorded == place.recorded or UNKNOWN in (note.recorded, place.recorded or UNKNOWN)
    )
