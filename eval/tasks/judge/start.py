"""Shared start of the judge's commands: their flags, and the key, which is never shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from eah.errors import EAHError
from eah.exit_status import redact_with
from eval.errors import EvaluationError
from eval.run.flag_parser import FlagParser
from eval.tasks.judge.config import CONFIG_FILE, JudgeConfig, endpoint, read_config
from eval.tasks.judge.keys import Key, note_readers, read_key
from models.errors import ModelError


def add_judge_flags(flags: FlagParser) -> None:
    """Add the flags for the judge and its costs."""
    flags.flag("--judge-model", metavar="NAME", help="judge model (default: of configs/judge.yaml)")
    flags.flag("--judge-base-url", metavar="URL",
               help="address of the chat completions API (default: OPENAI_BASE_URL)")  # fmt: skip
    flags.flag("--judge-workers", type=int, help="concurrent requests (default: 8)")
    flags.flag("--judge-config", type=Path, metavar="FILE",
               help="settings of the judge (default: configs/judge.yaml)")  # fmt: skip
    flags.flag("--api-key-file", type=Path, metavar="FILE",
               help="file with the API key (default: the variable OPENAI_API_KEY)")  # fmt: skip
    flags.flag("--max-cost", type=float, metavar="USD",
               help="largest total cost of this run in US dollars (default: no limit)")  # fmt: skip
    flags.flag("--max-requests", type=int,
               help="largest total number of requests of this run (default: no limit)")  # fmt: skip


def run_with_key(
    given: dict[str, Any], work: Callable[[dict[str, Any], Key | EvaluationError], None]
) -> None:
    """Read the key, and run a command whose output and files never contain it.

    Args:
        given: The command's flags.
        work: Function that takes the flags, and the key or the error that there is none.
    Raises:
        EvaluationError: If something is missing or not allowed, or a flag contains the key.
    """
    key = find_key(given.get("api_key_file"))
    if isinstance(key, EvaluationError):
        work(given, key)
        return
    redact_with(key.hide)
    for name, value in given.items():
        if key.is_in(str(value)):
            raise EvaluationError(
                f"--{name.replace('_', '-')} contains the key, which other users can read on a "
                "command line; put it into OPENAI_API_KEY, or into a file for --api-key-file"
            )
    try:
        work(given, key)
    except (EvaluationError, EAHError, ModelError) as error:
        said = str(error)
        if key.hide(said) == said:
            raise
        raise EvaluationError(key.hide(said)) from None


def find_key(path: Path | None) -> Key | EvaluationError:
    """Read the key, or return the error that there is none, which matters only for sending.

    Raises:
        EvaluationError: If a file is given that has no key.
    """
    try:
        key = read_key(path)
    except EvaluationError as error:
        if path is not None:
            raise
        return error
    if path is not None and (note := note_readers(path)):
        print(note, file=sys.stderr)
    return key


def config_of(given: dict[str, Any], key: Key | EvaluationError) -> JudgeConfig:
    """Remove the judge's settings from the given flags, and return them.

    Raises:
        EvaluationError: If a setting is not allowed, or contains the key.
    """
    config = read_config(given.pop("judge_config", CONFIG_FILE), take_fields(given, JudgeConfig))
    for name, value in (("judge_model", config.judge_model), ("the address", endpoint(config))):
        if isinstance(key, Key) and key.is_in(value):
            raise EvaluationError(f"{name} of the judge contains the key, which would be written "
                                  "to files; remove it")  # fmt: skip
    return config


def take_fields(given: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Remove the fields of a dataclass from the given flags, and return them."""
    return {name: given.pop(name) for name in names_of(kind) if name in given}


def names_of(kind: type[Any]) -> list[str]:
    """Return the names of a dataclass's fields."""
    return [item.name for item in fields(kind)]
