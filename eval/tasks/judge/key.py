"""The key of the endpoint: where it comes from, and that it is never shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from eval.errors import EvaluationError

VARIABLE: Final = "OPENAI_API_KEY"
HIDDEN: Final = "[key]"
# Local servers take "none" or "x", which replies hold for other reasons.
SHORTEST: Final = 8


class Key:
    """A secret that prints as [key]."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return HIDDEN

    def reveal(self) -> str:
        """Return the secret, for the client that sends it."""
        return self._secret

    def hide(self, text: str) -> str:
        """Return a text without the secret: an endpoint may send it back.

        What is shorter than any real key stays.
        """
        return text if len(self._secret) < SHORTEST else text.replace(self._secret, HIDDEN)


def read_key(path: Path | None, environment: Mapping[str, str] = os.environ) -> Key:
    """Return the key from a file, or from OPENAI_API_KEY.

    Raises:
        EvaluationError: If there is none, or it can't be one.
    """
    if path is None:
        secret, source = environment.get(VARIABLE, "").strip(), f"the variable {VARIABLE}"
        if not secret:
            raise EvaluationError(
                f"no key: set the environment variable {VARIABLE}, or pass --api-key-file with a "
                "file that holds it (a local server that needs none takes any text)"
            )
    else:
        # The value is not shown: somebody may have typed the key in the place of the file.
        try:
            secret, source = path.read_text(encoding="utf-8").strip(), "--api-key-file"
        except OSError as error:
            raise EvaluationError(
                f"the file of --api-key-file can't be read: {error.strerror}; it takes the name of "
                "a file that holds the key, not the key"
            ) from None
        except UnicodeDecodeError:
            secret, source = "", "--api-key-file"
    if not (secret.isascii() and secret.isprintable()) or not secret or " " in secret:
        raise EvaluationError(
            f"{source} holds no key: one line of letters, digits and signs is needed, without "
            "spaces; copy it again from the endpoint's page"
        )
    return Key(secret)
