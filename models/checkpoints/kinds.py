"""Whether the values of a config are of the types that its class has.

transformers before 5.1 does not check them: text in the place of a number would only show at the
first answer, as a TypeError.
"""

from __future__ import annotations

from typing import Any, Final

from models.library_errors import one_line

SECTIONS: Final = ("text_config", "vision_config", "qformer_config")


def check_kinds(config: Any) -> None:
    """Compare a config, and those within it, with the defaults of their classes.

    Raises:
        TypeError: Naming the first value of another kind.
    """
    for section in (config, *(getattr(config, name, None) for name in SECTIONS)):
        if section is None:
            continue
        for name, default in type(section)().to_dict().items():
            value = getattr(section, name, None)
            # A pair may stand for a square's side; what a class has no default for may be all.
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
