"""Errors. Each message says what was given, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def nearest(name: str, known: Collection[str]) -> str:
    """Return "did you mean ...?" if a known name is close, then the list of known names."""
    close = difflib.get_close_matches(name, list(known), n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}known are {', '.join(sorted(known))}"


class EAHError(Exception):
    """Base of all errors of this package."""


class EAHConfigError(EAHError, ValueError):
    """A setting has a value that is not allowed, or that the model does not have."""


class UnsupportedModelError(EAHError, TypeError):
    """The model, or its attention kernel, can't be changed in the way EAH needs."""


class UnsupportedVersionError(EAHError, ImportError):
    """The installed transformers is too old or too new."""


class EAHStateError(EAHError, RuntimeError):
    """EAH is on or off when it must not be, or a prompt's image tokens can't be known."""
