"""Methods by name: their published settings, and what a model overrides.

`configs/methods.yaml` has a line for each method: its class, and the settings that it was published
with. Settings that depend on the language model, such as a list of heads, are in the model's
config. Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from eah.errors import nearest
from models.errors import ModelError
from models.settings import CONFIGS, model_settings, read_yaml

LIST: Final = re.compile(r"\d+(-\d+)?(\+\d+(-\d+)?)*")
MOST_LAYERS: Final = 9_999  # to be read at all; what a model has is checked when it is there
# Of a method's line: its class, and the models that its settings were published for.
NO_SETTINGS: Final = ("class", "published_for")


@cache
def read_methods() -> dict[str, dict[str, Any]]:
    """Return class and published settings of every decoding method, by name."""
    return {name: _read(values) for name, values in read_yaml(CONFIGS / "methods.yaml").items()}


def published_settings(name: str, needed: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's settings as published, and as a model needs them.

    Args:
        name: Of the method.
        needed: What the model needs in their place (`needed_settings`).
    """
    values = {**read_methods()[name], **needed}
    return {key: value for key, value in values.items() if key not in NO_SETTINGS}


def needed_settings(model: str) -> dict[str, dict[str, Any]]:
    """Return what a model's config says of methods, by name.

    Raises:
        ModelError: If there is no such model, a method or a setting is unknown, or it is not a
            mapping of settings.
    """
    where, settings = f"{model}.yaml: methods", model_settings(model)
    found, size = settings.methods, settings.methods_for
    sizes = size.values() if isinstance(size, dict) else [None]
    if any(type(one) is not int for one in sizes) or (size and set(size) != {"layers", "width"}):
        raise ModelError(
            f"{model}.yaml: methods_for is {size!r:.60}, but it must be {{layers: N, width: N}}"
        )
    if not isinstance(found, dict):
        raise ModelError(f"{where} is {found!r:.60}, but it must be settings by method")
    for name, values in found.items():
        if name not in read_methods():
            raise ModelError(f"{where}: {name!r} is unknown: {nearest(name, read_methods())}")
        if not isinstance(values, dict):
            raise ModelError(f"{where}: {name} is {values!r:.60}, but it must be settings")
        known = published_settings(name, {})
        for setting in values:
            if setting not in known:
                raise ModelError(
                    f"{where}: {name} has no setting {setting!r}: {nearest(setting, known)}"
                )
    try:
        return {name: _read(values) for name, values in found.items()}
    except ValueError as error:
        raise ModelError(f"{where}: {error}") from error


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with lists of numbers read where they are written as 5-18 or 1+3."""
    return {
        key: list(read_layers(value)) if isinstance(value, str) and LIST.fullmatch(value) else value
        for key, value in values.items()
    }


def read_layers(text: str) -> tuple[int, ...]:
    """Read layers: "2", "0-2" (with both ends) or "1+3"."""
    found: list[int] = []
    for part in text.split("+"):
        first, dash, last = part.partition("-")
        if max(len(first), len(last)) > len(str(MOST_LAYERS)):
            raise ValueError(f"no model has so many layers: {part[:20]}")
        if dash and int(last) < int(first):
            raise ValueError(f"{part} counts down; write the smaller number first")
        found += range(int(first), int(last if dash else first) + 1)
    return tuple(found)
