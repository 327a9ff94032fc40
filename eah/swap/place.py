"""A modeling file that can be swapped, and the names of the files next to it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eah.drop_in.names import ORIGINAL_SUFFIX
from eah.errors import EAHError

GIT: Final = "git"
RECORDS: Final = "records"


class SwapError(EAHError):
    """The file can't be swapped in its current state."""


@dataclass(frozen=True, slots=True)
class Place:
    """A modeling file of a transformers install, or a repository's own copy of one.

    Attributes:
        family: Model family, such as "llama".
        file: The file that code imports.
        package: Folder of the package transformers; None for a repository's own copy.
        version: Version of transformers; "" if it is not known.
        recorded: SHA-256 of the original; "" if nothing records it.
        record: Source of that: RECORDS (of pip or conda), GIT, or "".
        python: Interpreter that this place was found with.
    """

    family: str
    file: Path
    package: Path | None = None
    version: str = ""
    recorded: str = ""
    record: str = ""
    python: Path | None = None

    @property
    def original(self) -> Path:
        """Path of the original while our file replaces it."""
        return self.file.with_name(f"{self.file.stem}{ORIGINAL_SUFFIX}.py")

    @property
    def checksum(self) -> Path:
        """The note about the kept original, in the format of sha256sum."""
        return self.original.with_suffix(".sha256")

    @property
    def aside_path(self) -> Path:
        """Path for a kept file that is not the original."""
        return self.original.with_name(f"{self.original.name}.replaced")

    @property
    def owner(self) -> str:
        """Whose file the original is."""
        if self.package is None:
            return "the repository's own"
        return "transformers' own"

    @property
    def source(self) -> str:
        """Source of the original."""
        return "the repository" if self.package is None else "transformers"

    @property
    def title(self) -> str:
        """Title of the place in messages."""
        if self.package is None:
            return "own copy"
        return f"transformers {self.version or 'of unknown version'}"

    def command(self, action: str) -> str:
        """Return the command that does something with this place."""
        return f"python -m eah.swap {action} --file {shlex.quote(str(self.file))}"

    def linked_folder(self) -> Path | None:
        """Return the real folder if the place is reached through a link to a folder."""
        folders = [self.file.parent]
        if self.package is not None:
            folders += [self.package / "models", self.package]
        return self.file.parent.resolve() if any(map(Path.is_symlink, folders)) else None
