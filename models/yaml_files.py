"""YAML of settings: one reader, whose errors are one sentence.

It takes what settings need: values, lists, and mappings whose keys are text, each key once.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, NoReturn

import yaml


class _Settings(yaml.SafeLoader):
    """Reads plain values; what could mean two things, or grow without bound, is refused."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse `*name` of a list or mapping: a few lines of these stand for gigabytes."""
        if self.check_event(yaml.AliasEvent):
            at = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs lack it
            if not isinstance(self.anchors.get(at.anchor), (yaml.ScalarNode, NoneType)):
                _refuse("*names of lists and mappings are not read; write the value out", at)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a value; what looks like a date or a number and is none is refused."""
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            shown = node.value if isinstance(node, yaml.ScalarNode) else node.tag
            _refuse(f"{shown[:40]!r} can't be read; put quotes around it if it is text", node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping whose keys are text and differ."""
        keys: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                _refuse(f"key {key!r:.60} is not text; put quotes around it", key_node)
            if key in keys:
                _refuse(f"key {key!r:.60} is duplicated", key_node)
            keys.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str | bytes) -> Any:
    """Return the value of a text of YAML, in UTF-8 or UTF-16 if it is bytes.

    Raises:
        ValueError: Saying in one line what is wrong with it, and where.
    """
    try:
        # A subclass of the safe loader: it makes plain values only.
        return yaml.load(text, Loader=_Settings)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{error.problem or error.context}{where}") from error
    except (yaml.YAMLError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _refuse(problem: str, at: yaml.Node | yaml.Event) -> NoReturn:
    mark: Any = at.start_mark
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
