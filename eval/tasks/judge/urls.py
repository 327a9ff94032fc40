"""The address of an endpoint: what can't be one, and what carries a secret, are refused.

An address is written down: in run.json, in reports and on the screen. So nothing of it is shown
before it is known to hold no secret.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from itertools import pairwise
from typing import Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from eval.errors import EvaluationError

EXAMPLE: Final = "http://127.0.0.1:8000/v1"
LONGEST: Final = 500
# What keys of well-known vendors start with, where a letter before it makes another word of it.
_KEY: Final = re.compile(
    r"(?<![a-z0-9])(?:(?:sk|pk|rk)[-_][\w-]{8,}"
    r"|(?:gsk_|csk-|ghp_|hf_|xai-|nvapi-|pplx-|r8_|dapi|aiza|key-)(?=[a-z]*[0-9])[a-z0-9]{12,})",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"[A-Za-z0-9]+")
_SHORTEST_RANDOM: Final = 20
_CHANGES: Final = 0.4


def check_url(url: str, source: str) -> None:
    """Check the address of an endpoint.

    Args:
        url: The address.
        source: The setting or variable that holds it.
    Raises:
        EvaluationError: If it is none, or carries a secret, which is not shown.
    """
    parts = _split(url)
    if parts is None or not _is_plain(url):
        raise EvaluationError(
            f"{source} {_shown(url)} is no address; it must read {EXAMPLE}: http:// or https://, a "
            "host, a port up to 65535 if need be, and a path"
        )
    if "@" in parts.netloc or "?" in url or "#" in url or ";" in url:
        raise EvaluationError(
            f"{source} holds a user, a password, a query or a fragment; put the key into "
            "OPENAI_API_KEY or into a file for --api-key-file, and leave it out of the address"
        )
    if any(looks_secret(part) for part in unquote(unquote(parts.path)).split("/")):
        raise EvaluationError(
            f"a part of the path of {source} looks like a key; put the key into OPENAI_API_KEY or "
            "into a file for --api-key-file, and leave it out of the address"
        )


def looks_secret(part: str) -> bool:
    """Return whether a part of a path looks like a key.

    It does if something in it starts as vendors' keys do and goes on for long, or if it has a long
    word of large letters, small letters and digits that change at random. Names of models change
    rarely ("Qwen2VL7BInstruct"), and ids of projects and accounts are hexadecimal or have no large
    letters: a key that looks so can't be told from them, and is refused where it is the one in use.
    """
    if _KEY.search(part):
        return True
    return any(_is_random(word) for word in _WORD.findall(part))


def where_to(url: str, location: str) -> str:
    """Return where a redirect leads, in words and without what may be a secret."""
    try:
        target, here = urlsplit(urljoin(url, location)), urlsplit(url)
        there = f"{target.scheme}://{target.hostname}" + (f":{target.port}" if target.port else "")
        same = (target.scheme, target.hostname, target.port) == (
            here.scheme,
            here.hostname,
            here.port,
        )
    except ValueError:
        return "what is no address"
    if not location or not target.hostname:
        return "nowhere"
    return "another path of the same server" if same else there


def _split(url: str) -> SplitResult | None:
    """Return the parts of an address; None if it is none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        known = parts.scheme in ("http", "https") and host and port != 0
        if not known or not host:
            return None
        # As the HTTP library will have it; such a host has no empty and no long labels.
        host.encode("idna")
        if "[" in parts.netloc:
            IPv6Address(host)
    except ValueError:
        return None
    return parts


def _is_plain(url: str) -> bool:
    """Return whether an address is short, and without what urlsplit() drops in silence."""
    return len(url) <= LONGEST and url.isprintable() and not set(url) & set(' \\"<>^`{|}')


def _shown(url: str) -> str:
    """Return what is no address, or why it is not shown."""
    safe = len(url) <= 100 and not set(url) & set("@?#;=%")
    if safe and not any(looks_secret(part) for part in re.split(r"[/\\\s:]", url)):
        return repr(url)
    return "(not shown, it may hold a secret)"


def _is_random(word: str) -> bool:
    if len(word) < _SHORTEST_RANDOM:
        return False
    kinds = [(one.isupper(), one.isdigit()) for one in word]
    changes = sum(one != other for one, other in pairwise(kinds))
    return len(set(kinds)) == 3 and changes >= _CHANGES * len(word)
