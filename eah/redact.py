"""Remove secrets and home folders from text that people paste into issues or send to others.

Needs the standard library alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

KEY: Final = "[key]"
SHORTEST_SECRET: Final = 8
# Environment variables whose values are secrets, such as OPENAI_API_KEY or HF_TOKEN.
SECRET_NAME: Final = re.compile(
    r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE
)
# Text that looks like a secret whatever variable or file it is from.
SECRET_TEXT: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(?:sk|pk|rk|glpat|xox[a-z])-[\w-]{8,}",
        r"\b(?:hf|gh[a-z]|github_pat|npm|pypi)_\w{8,}",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}",
        r"\bAIza[\w-]{20,}",
        r"\beyJ[\w-]{8,}\.[\w.-]+",
        r"(?i:\bbearer\s+)\S{8,}",
        r"(?<=://)[^/\s@]+(?=@)",
        r"(?i:(?<=[?&])[\w-]*(?:key|token|secret|password)[\w-]*=)[^&\s\"']+",
        r"(?i:\b(?:api[_-]?key|token|secret|password)\b[\"']?\s*[=:]\s*[\"']?)[^\s\"',}]{4,}",
        r"\b(?=\w*[a-z])(?=\w*[A-Z])(?=\w*\d)[A-Za-z0-9]{32,}\b",
    )
)
# The home folder of anyone, on Linux, macOS and Windows.
HOME: Final = re.compile(r"(?:[A-Za-z]:)?(?:[/\\]+(?:home|Users)[/\\]+)[^/\\\s\"'`,;:]+")
ABSOLUTE: Final = re.compile(r"(~|[A-Za-z]:)?[/\\]")


def hide_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a text without the secrets of an environment and without what looks like one."""
    values = {value for name, value in environment.items() if SECRET_NAME.search(name)}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= SHORTEST_SECRET:
            text = text.replace(value, KEY)
    for pattern in SECRET_TEXT:
        text = pattern.sub(KEY, text)
    return text


def hide_home(text: str) -> str:
    """Return a text with ~ instead of home folders."""
    try:
        home = str(Path.home())
    except RuntimeError:  # this user has no home folder
        home = ""
    if len(home) > 1:
        text = re.sub(rf"{re.escape(home)}(?=[/\\\s\"'`,;:)]|$)", "~", text)
    return HOME.sub("~", text)


def shorten_path(text: str) -> str:
    """Return ~/.../NAME or .../NAME for an absolute path; other text is unchanged."""
    text = hide_home(text)
    if not ABSOLUTE.match(text):
        return text
    parts = [part for part in re.split(r"[/\\]+", text) if part]
    start = [part for part in parts[:1] if part == "~"]
    skipped = ["..."] if len(parts) > len(start) + 1 or not start else []
    return "/".join([*start, *skipped, *parts[len(start) :][-1:]])
