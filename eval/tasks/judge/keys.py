"""The judge's API key: read from a variable or a file, and hidden in everything shown or stored."""

from __future__ import annotations

import base64
import os
import re
import select
import stat
import string
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.text import MARKS

VARIABLE: Final = "OPENAI_API_KEY"
HIDDEN: Final = "[key]"
# Substrings of the key with at least this many characters are hidden. Shorter keys are not: they
# protect nothing ("none", "x" for a local server), and replies contain such words anyway.
SHORTEST: Final = 8
LARGEST_FILE: Final = 4096
PATIENCE_S: Final = 60.0

# An escaped character in JSON, Python, URLs and HTML, also if it was escaped repeatedly.
_ESCAPE: Final = re.compile(
    r"\\+u(?P<json>[0-9a-f]{4})|\\+x(?P<python>[0-9a-f]{2})|%(?:25)*(?P<url>[0-9a-f]{2})"
    r"|&(?:amp;)*#x0*(?P<hexadecimal>[0-9a-f]{1,6});|&(?:amp;)*#0*(?P<decimal>[0-9]{1,7});"
    r"|&(?:amp;)*(?P<name>amp|lt|gt|quot|apos);|\\+(?P<plain>[^\w\s])",
    re.IGNORECASE,
)
# lower() would turn some letters into two.
_SMALL: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_NAMES: Final = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_ASSIGNMENT: Final = re.compile(r"(?:export\s+|set\s+|\$env:)?[A-Za-z_]\w*\s*=\s*[^=\s].*")


class Key:
    """A secret that prints as [key]."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return HIDDEN

    def reveal(self) -> str:
        """Return the secret, for the client that sends it."""
        return self._secret

    def hide(self, text: str) -> str:
        """Return a text without the secret.

        Substrings of it are hidden too, since the text may be truncated. So are other forms that a
        server may return: escaped for JSON, a URL or HTML, in Base64, or in another case.
        """
        if len(self._secret) < SHORTEST:
            return text
        small = text.translate(_SMALL)
        # Also without unescaping: a key may contain what looks like an escape.
        spans = self._spans(small, range(len(small) + 1))
        if _ESCAPE.search(small):
            spans = sorted(spans + self._spans(*_unescape(small)))
        parts: list[str] = []
        done = 0
        for start, end in spans:
            if start > done or not parts:
                parts += [text[done:start], HIDDEN]
            done = max(done, end)
        return "".join(parts) + text[done:]

    def _spans(self, characters: str, starts: Sequence[int]) -> list[tuple[int, int]]:
        """Return the start and end of each fragment of the secret in a text.

        Args:
            characters: The text, possibly unescaped.
            starts: Position of each character, and of the end, in the original text.
        """
        return [
            (starts[at], starts[at + SHORTEST])
            for at in range(len(characters) - SHORTEST + 1)
            if characters[at : at + SHORTEST] in self._fragments
        ]

    def is_in(self, text: str) -> bool:
        """Return whether a text contains the whole secret; False if that is too short for a key."""
        plain, _ = _unescape(text.translate(_SMALL))
        return len(self._secret) >= SHORTEST and self._secret.translate(_SMALL) in plain

    def hide_in(self, value: Any) -> Any:
        """Return a JSON value without the secret, also in its keys."""
        if isinstance(value, dict):
            return {self.hide_in(name): self.hide_in(one) for name, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.hide_in(one) for one in value]
        return self.hide(value) if isinstance(value, str) else value

    @cached_property
    def _fragments(self) -> frozenset[str]:
        """All substrings of the shortest hidden length, in lower case."""
        secret = self._secret.encode("utf-8", "replace")
        forms = [self._secret, _unescape(self._secret.translate(_SMALL))[0]]
        # Base64 depends on the position of the secret within three bytes. Characters that encode
        # bytes around the secret are left out.
        for shift in range(3):
            form = base64.b64encode(b"\0" * shift + secret).decode()
            whole = form[(0, 2, 3)[shift] : (shift + len(secret)) * 8 // 6]
            forms += [whole, whole.translate(str.maketrans("+/", "-_"))]
        return frozenset(
            form.translate(_SMALL)[at : at + SHORTEST]
            for form in forms
            for at in range(len(form) - SHORTEST + 1)
        )


def _unescape(text: str) -> tuple[str, list[int]]:
    """Return an unescaped text, and the original position of each of its characters and the end."""
    characters: list[str] = []
    starts: list[int] = []
    done = 0
    for match in _ESCAPE.finditer(text):
        characters += text[done : match.start()]
        starts += range(done, match.start())
        characters.append(_character(match))
        starts.append(match.start())
        done = match.end()
    characters += text[done:]
    starts += range(done, len(text) + 1)
    return "".join(characters), starts


def _character(match: re.Match[str]) -> str:
    kind, value = next((kind, value) for kind, value in match.groupdict().items() if value)
    if kind == "plain":
        return value
    if kind == "name":
        return _NAMES[value]
    number = int(value, 10 if kind == "decimal" else 16)
    return chr(number).translate(_SMALL) if number <= sys.maxunicode else "\0"


def read_key(path: Path | None, environment: Mapping[str, str] = os.environ) -> Key:
    """Read the key from a file, or from OPENAI_API_KEY.

    Raises:
        EvaluationError: If there is none, or it can't be a key.
    """
    if path is None:
        secret, source = environment.get(VARIABLE, "").strip(), f"the variable {VARIABLE}"
        if not secret:
            raise EvaluationError(
                f"no key: set the environment variable {VARIABLE}, or pass a file that contains it "
                "as --api-key-file (any text will do for a local server that needs no key)"
            )
    else:
        secret, source = _read_file(path), "the file of --api-key-file"
    if len(secret) > 1 and secret[0] == secret[-1] and secret[0] in "\"'`":
        raise EvaluationError(
            f"{source} has quotes around the key; remove them, only the key itself is needed"
        )
    if _ASSIGNMENT.fullmatch(secret):
        raise EvaluationError(
            f"{source} contains an assignment such as NAME=key; keep only the part after the "
            "equals sign, without quotes"
        )
    if not (secret.isascii() and secret.isprintable()) or not secret or " " in secret:
        raise EvaluationError(
            f"{source} does not contain a key: one line of letters, digits and symbols is needed, "
            "without spaces; copy it again from the endpoint's page"
        )
    return Key(secret)


def note_readers(path: Path) -> str | None:
    """Return a note if other users can read the file of the key; None otherwise."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if os.name != "posix" or not stat.S_ISREG(mode) or not mode & 0o044:
        return None
    return "note: other users can read the file of --api-key-file; `chmod 600` makes it private"


def _read_file(path: Path) -> str:
    """Return the content of a small file, or of a pipe such as `<(pass show judge)`.

    Errors do not show its name: the user may have typed the key instead.
    """
    try:
        content = _read_bounded(path)
    except (OSError, ValueError) as error:  # The name has a NUL or half a surrogate pair.
        reason = getattr(error, "strerror", None) or "no file has such a name"
        raise EvaluationError(
            f"the file of --api-key-file can't be read: {reason}; pass the name of a file that "
            "contains the key, not the key itself"
        ) from None
    if len(content) > LARGEST_FILE:
        raise EvaluationError(
            f"the file of --api-key-file is not a key: it is larger than {LARGEST_FILE} bytes; "
            "pass a file with nothing but the key"
        )
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    return content.decode(encoding, errors="replace").strip()


def _read_bounded(path: Path) -> bytes:
    """Return a file's content, stopping once it is too large."""
    # Non-blocking, since a pipe may never get a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(0, "it is a folder")
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise OSError(0, "it is a device")
        content = b""
        while len(content) <= LARGEST_FILE:
            if stat.S_ISFIFO(mode) and not select.select([descriptor], [], [], PATIENCE_S)[0]:
                raise OSError(0, f"the pipe sent nothing for {PATIENCE_S:g} s")
            more = os.read(descriptor, LARGEST_FILE + 1 - len(content))
            if not more:
                break
            content += more
        return content
    finally:
        os.close(descriptor)
