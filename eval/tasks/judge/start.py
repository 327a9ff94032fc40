"""What every command of the judge does first: its flags, and its key, which nothing shows."""

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
    """Add the flags that say who judges, and what it may cost."""
    flags.flag("--judge-model", metavar="NAME", help="the judge (configs/judge.yaml names one)")
    flags.flag("--judge-base-url", metavar="URL", help="endpoint that speaks chat completions")
    flags.flag("--judge-workers", type=int, help="requests under way at a time (8)")
    flags.flag("--judge-config", type=Path, metavar="FILE", help="instead of configs/judge.yaml")
    flags.flag("--api-key-file", type=Path, metavar="FILE", help="key (else OPENAI_API_KEY)")
    flags.flag("--max-cost", type=float, metavar="USD", help="never spend more on this run")
    flags.flag("--max-requests", type=int, help="never send more on this run")


def run_with_key(
    given: dict[str, Any], work: Callable[[dict[str, Any], Key | EvaluationError], None]
) -> None:
    """Read the key, and run a command without it in what is said or written.

    Args:
        given: The command's flags.
        work: Takes them, and the key or why there is none.
    Raises:
        EvaluationError: If something is missing or not allowed, or a flag holds the key.
    """
    key = find_key(given.get("api_key_file"))
    if isinstance(key, EvaluationError):
        work(given, key)
        return
    redact_with(key.hide)
    for name, value in given.items():
        if key.is_in(str(value)):
            raise EvaluationError(
                f"--{name.replace('_', '-')} holds the key, which others can read on a command "
                "line; leave it in OPENAI_API_KEY, or in a file for --api-key-file"
            )
    try:
        work(given, key)
    except (EvaluationError, EAHError, ModelError) as error:
        said = str(error)
        if key.hide(said) == said:
            raise
        raise EvaluationError(key.hide(said)) from None


def find_key(path: Path | None) -> Key | EvaluationError:
    """Return the key, or why there is none, where that matters only if something is asked.

    Raises:
        EvaluationError: If a file was named that holds none.
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
    """Take the judge's settings out of the flags that were given, and return them.

    Raises:
        EvaluationError: If one is not allowed, or holds the key.
    """
    config = read_config(given.pop("judge_config", CONFIG_FILE), taken(given, JudgeConfig))
    for name, value in (("judge_model", config.judge_model), ("the address", endpoint(config))):
        if isinstance(key, Key) and key.is_in(value):
            raise EvaluationError(f"{name} of the judge holds the key, which is then written down; "
                                  "leave it out")  # fmt: skip
    return config


def taken(given: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Take the flags that are fields of a dataclass out of those that were given."""
    return {name: given.pop(name) for name in names_of(kind) if name in given}


def names_of(kind: type[Any]) -> list[str]:
    """Return the names of a dataclass's fields."""
    return [item.name for item in fields(kind)]
