"""Check that a config's values have the types that its class expects.

transformers before 5.1 does not: text instead of a number would raise a TypeError at the first
answer.
"""

from __future__ import annotations

from typing import Any, Final

from models.library_errors import one_line

SECTIONS: Final = ("text_config", "vision_config", "qformer_config")


def check_config_types(config: Any) -> None:
    """Compare the types in a config and its sections with the defaults of their classes.

    Raises:
        TypeError: Naming the first value of another type.
    """
    for section in (config, *(getattr(config, name, None) for name in SECTIONS)):
        if section is None:
            continue
        for name, default in type(section)().to_dict().items():
            value = getattr(section, name, None)
            # A size may be a pair; values without a default may have any type.
            numbers = value if isinstance(value, (list, tuple)) and value else [value]
            if isinstance(default, str):
                is_right = isinstance(value, str)
            elif isinstance(default, float):
                is_right = isinstance(value, (int, float))
            elif isinstance(default, int):  # a bool, too
                is_right = all(isinstance(number, int) for number in numbers)
            else:
                continue
            if not is_right and value is not None:
                raise TypeError(f"{name} is {one_line(repr(value), 80)}")
