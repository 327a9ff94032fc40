"""Check the address of an endpoint: invalid addresses and those with a secret are refused.

Addresses are stored in run.json and shown in reports and on the screen. Nothing of an address is
shown before it is known to contain no secret.
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
# Prefixes of the keys of well-known vendors, not preceded by a letter or digit.
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
        source: The setting or variable with the address.
    Raises:
        EvaluationError: If it is invalid, or contains a secret, which is not shown.
    """
    parts = _split(url)
    if parts is None or not _is_plain(url):
        raise EvaluationError(
            f"{source} {_show_url(url)} is not an address; it must be like {EXAMPLE}: http:// or "
            "https://, a host, optionally a port up to 65535, and a path"
        )
    if "@" in parts.netloc or "?" in url or "#" in url or ";" in url:
        raise EvaluationError(
            f"{source} contains a user, a password, a query or a fragment; put the key into "
            "OPENAI_API_KEY or into a file for --api-key-file, and leave it out of the address"
        )
    if any(looks_secret(part) for part in unquote(unquote(parts.path)).split("/")):
        raise EvaluationError(
            f"a part of the path of {source} looks like a key; put the key into OPENAI_API_KEY or "
            "into a file for --api-key-file, and leave it out of the address"
        )


def looks_secret(part: str) -> bool:
    """Return whether a part of a path looks like a key.

    It does if it contains a long word with the prefix of a vendor's keys, or a long word in which
    upper case, lower case and digits alternate at random. In names of models they rarely alternate
    ("Qwen2VL7BInstruct"), and ids of projects and accounts are hexadecimal or have no upper case.
    Keys of such a form are not recognised here; the key in use is refused elsewhere.
    """
    if _KEY.search(part):
        return True
    return any(_is_random(word) for word in _WORD.findall(part))


def describe_redirect(url: str, location: str) -> str:
    """Describe the target of a redirect, without the parts that may contain a secret."""
    try:
        target, here = urlsplit(urljoin(url, location)), urlsplit(url)
        there = f"{target.scheme}://{target.hostname}" + (f":{target.port}" if target.port else "")
        same = (target.scheme, target.hostname, target.port) == (
            here.scheme,
            here.hostname,
            here.port,
        )
    except ValueError:
        return "an invalid address"
    if not location or not target.hostname:
        return "nowhere"
    return "another path of the same server" if same else there


def _split(url: str) -> SplitResult | None:
    """Return the parts of an address; None if it is invalid."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        known = parts.scheme in ("http", "https") and host and port != 0
        if not known or not host:
            return None
        # The HTTP library does the same; it fails for hosts with empty or long labels.
        host.encode("idna")
        if "[" in parts.netloc:
            IPv6Address(host)
    except ValueError:
        return None
    return parts


def _is_plain(url: str) -> bool:
    """Return whether an address is short, and free of characters that urlsplit() silently drops."""
    return len(url) <= LONGEST and url.isprintable() and not set(url) & set(' \\"<>^`{|}')


def _show_url(url: str) -> str:
    """Return an invalid address for a message, or why it is not shown."""
    safe = len(url) <= 100 and not set(url) & set("@?#;=%")
    if safe and not any(looks_secret(part) for part in re.split(r"[/\\\s:]", url)):
        return repr(url)
    return "(not shown, it may contain a secret)"


def _is_random(word: str) -> bool:
    if len(word) < _SHORTEST_RANDOM:
        return False
    kinds = [(one.isupper(), one.isdigit()) for one in word]
    changes = sum(one != other for one, other in pairwise(kinds))
    return len(set(kinds)) == 3 and changes >= _CHANGES * len(word)
