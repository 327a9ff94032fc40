"""Search files that do not parse, such as those for Python 2, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from eah.swap.reach.findings import Finding, Kind

PATTERNS: Final = (
    (Kind.COPY, r"\s*class\s+\w*llama\w*attention\w{0,3}\s*(\((?!.*attention)[^)]*\))?:", True),
    (Kind.ATTENTION, r"[^#'\"]*\.self_attn(\.forward|\.__class__)?\s*=[^=]", True),
    (Kind.ATTENTION, r"[^#'\"]*\b(llama|mistral|qwen2)\w*attention\w*\.forward\s*=[^=]", True),
    (Kind.ATTENTION, r"[^#'\"]*\b(llama|mistral|qwen2)_attention_classes\s*\[.*\]\s*=[^=]", True),
    (Kind.FLASH, r"[^#]*attn_implementation['\"]?\]?\s*[=:]\s*['\"](flash|flex|paged)", False),
    (Kind.FLASH, r"[^#]*use_flash_attention_2['\"]?\]?\s*[=:]\s*true", False),
)
SEARCHES: Final = tuple(
    (kind, re.compile(pattern, re.IGNORECASE), is_module) for kind, pattern, is_module in PATTERNS
)
DEFINITION: Final = re.compile(r"\s*self\.self_attn\s*=")  # a layer's own, as every model has it


def text_findings(text: str) -> Iterator[Finding]:
    """Yield the lines of a text that look like code that a swap can't reach."""
    for number, line in enumerate(text.splitlines(), start=1):
        for kind, search, is_module in SEARCHES:
            if search.match(line) and not DEFINITION.match(line):
                yield Finding(kind, number, line.strip()[:100], is_module)
                break
