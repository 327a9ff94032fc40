"""Validate run.json and arm.json key by key, so that readers of a run can rely on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.typed import LARGEST, describe_types

_NONE: Final = type(None)
# Keys of the settings, and the types of their values if they are present.
SETTINGS: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(("benchmark", "model", "family", "protocol", "dtype", "device"), (str,)),
    **dict.fromkeys(("pictures", "question", "scoring"), (str,)),
    **dict.fromkeys(("decoding", "questions", "images", "answers"), (dict,)),
    "left_out": (list,),
}
DECODING: Final = {"do_sample": (bool,), "num_beams": (int,), "max_new_tokens": (int,)}
ARM: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(("name", "started"), (str,)),
    **dict.fromkeys(("versions", "files"), (dict,)),
    **dict.fromkeys(("settings", "eah"), (dict, _NONE)),
    "code": (str,),
    "resumed": (list,),
}
JUDGE: Final = "judge"  # the benchmark of a folder of a judge's replies
ASK_AGAIN: Final = "run the command that made it with --fresh, which sets the arm aside"


def validate_settings(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the settings in a run.json at a path.

    Raises:
        EvaluationError: Naming the first key that is missing or of another type.
    """
    settings = content.get("settings")
    if not isinstance(settings, dict):
        raise _damaged(path, "settings", settings, (dict,))
    if settings.get("benchmark") == JUDGE:  # it names a judge and several files of answers
        return {**settings, "model": str(settings.get("judge_model"))}
    _check(path, settings, SETTINGS, needed=("benchmark", "model"))
    if (decoding := settings.get("decoding")) is not None:
        _check(path, decoding, DECODING, needed=tuple(DECODING), inside="decoding.")
    asked = {name: settings[name] for name in ("questions", "images") if name in settings}
    if asked and number_of_questions(settings) is None:
        raise _damaged(path, next(iter(asked)), next(iter(asked.values())), ())
    return settings


def check_arm(info: dict[str, Any], path: Path) -> None:
    """Check the content of an arm.json at a path.

    Raises:
        EvaluationError: Naming the first key that is missing or of another type.
    """
    _check(path, info, ARM, needed=("name", "started"), advice=ASK_AGAIN)


def number_of_questions(settings: Mapping[str, Any]) -> int | None:
    """Return the number of a run's questions from its settings; None if it is unknown."""
    questions = settings.get("questions") or settings.get("images") or {}
    # Version 0.1 has the number of pictures there; MME has a part of that name.
    if "count" in questions and not isinstance(questions["count"], dict):
        counts = [questions["count"]]
    else:
        counts = [part.get("count") if isinstance(part, dict) else None
                  for part in questions.values()]  # fmt: skip
    known = [count for count in counts if type(count) is int and 0 <= count < LARGEST]
    return sum(known) if known and len(known) == len(counts) else None


def _check(
    path: Path,
    record: dict[str, Any],
    kinds: Mapping[str, tuple[type, ...]],
    *,
    needed: tuple[str, ...],
    inside: str = "",
    advice: str = "copy it again, or delete the run folder",
) -> None:
    for name, types in kinds.items():
        if name in record and type(record[name]) not in types:
            raise _damaged(path, inside + name, record[name], types, advice)
        if name in needed and name not in record:
            raise EvaluationError(f"{path} is damaged, it has no {inside + name!r}; {advice}")


def _damaged(
    path: Path,
    name: str,
    value: Any,
    types: tuple[type, ...],
    advice: str = "copy it again, or delete the run folder",
) -> EvaluationError:
    wanted = describe_types([kind.__name__ for kind in types]) or "the number of questions by part"
    return EvaluationError(
        f"{path} is damaged, its {name!r} is {value!r:.60}, not {wanted}; {advice}"
    )
