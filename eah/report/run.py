"""The settings of a run that decide its answers, from run.json and each arm's arm.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from eah.redact import shorten_path

# What is shown. Other keys are named without their values, which may be anything.
RUN: Final = ("started", "git", "checkpoint", "device", "processes", "versions")
SETTINGS: Final = (
    "benchmark", "model", "family", "protocol", "dtype", "device", "quantization", "weights",
    "decoding", "decoding_methods", "method", "eah", "seed", "batch_size", "prefix_reuse",
    "compile", "question", "questions", "images", "pictures", "scoring", "judge_model",
    "judge_protocol", "judge_mode", "image_size", "image_detail", "reasoning_effort",
)  # fmt: skip
ARM: Final = (
    "started", "git", "settings", "eah", "code", "weights", "device", "batch_size", "num_workers",
    "prefix_reuse", "compile", "processes", "versions",
)  # fmt: skip
MOST_ARMS: Final = 20
MOST_BYTES: Final = 16 * 2**20
HASH: Final = re.compile(r"\b[0-9a-f]{16,}\b")
Lines = Iterator[tuple[str, object]]


def describe_run(folder: Path) -> Lines:
    """Yield the settings of a run and of its arms.

    Args:
        folder: A run folder, which has a run.json.
    """
    content = _read(folder / "run.json")
    if isinstance(content, str):
        yield "run.json", content
    else:
        yield from _lines(content, RUN, "")
        settings = content.get("settings")
        if isinstance(settings, dict):
            yield from _lines(settings, SETTINGS, "settings.")
        else:
            yield "settings", "missing"
    files = sorted(folder.glob("arms/*/arm.json"))
    for path in files[:MOST_ARMS]:
        arm = _read(path)
        name = f"arm {path.parent.name}"
        if isinstance(arm, str):
            yield name, arm
        else:
            yield from _lines(arm, ARM, f"{name}, ")
    if len(files) > MOST_ARMS:
        yield "more arms", len(files) - MOST_ARMS


def _lines(content: dict[str, Any], shown: tuple[str, ...], prefix: str) -> Lines:
    for name in shown:
        if name in content:
            yield prefix + name, json.dumps(_shorten(content[name]), ensure_ascii=False)
    others = sorted(set(content) - {*shown, "settings", "name"})
    if others:
        yield f"{prefix}not shown", ", ".join(others)


def _shorten(value: Any) -> Any:
    """Return a value with short hashes and paths."""
    if isinstance(value, dict):
        return {str(_shorten(name)): _shorten(of) for name, of in value.items()}
    if isinstance(value, list):
        return [_shorten(of) for of in value]
    if isinstance(value, str):
        return HASH.sub(lambda found: f"{found[0][:12]}...", shorten_path(value))
    return value


def _read(path: Path) -> dict[str, Any] | str:
    """Return the content of a JSON file, or why it can't be read."""
    try:
        if not path.is_file():
            return "can't be read: not a file"
        if path.stat().st_size > MOST_BYTES:
            return f"can't be read: larger than {MOST_BYTES // 2**20} MiB"
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        return f"can't be read: {reason}"
    return content if isinstance(content, dict) else "can't be read: not a JSON object"
