"""Rules that say which tensor of a file becomes which parameter of a model.

A rule is a pair of names with placeholders, "blocks.{i}.mlp.fc1.{p}" and
"vision_model.encoder.layers.{i}.mlp.fc1.{p}", and reads in both directions: forward to load, and
backward to name in the file's own words what it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

PLACEHOLDERS: Final = {
    "{i}": r"(?P<i>\d+)",  # index of a layer
    "{p}": r"(?P<p>weight|bias)",
    "{rest}": r"(?P<rest>.+)",
}


@dataclass(frozen=True)
class Rule:
    """Where a tensor goes.

    Attributes:
        source: Name in the file.
        target: Name in the model.
        third: The tensor is this third (0, 1 or 2) of the target's rows, as in a fused query, key
            and value; a third that no rule fills is zero. None: the tensor is all of it.
    """

    source: str
    target: str
    third: int | None = None

    @cached_property
    def _source_pattern(self) -> re.Pattern[str]:
        return _pattern(self.source)

    @cached_property
    def _target_pattern(self) -> re.Pattern[str]:
        return _pattern(self.target)

    def target_of(self, source: str) -> str | None:
        """Return the parameter that a tensor of the file becomes; None if the rule is not its."""
        found = self._source_pattern.fullmatch(source)
        return None if found is None else _filled(self.target, found)

    def source_of(self, target: str) -> str | None:
        """Return the tensor that a parameter is made from; None if the rule is not its."""
        found = self._target_pattern.fullmatch(target)
        return None if found is None else _filled(self.source, found)


@dataclass(frozen=True)
class PartRules:
    """How one part of a checkpoint is read.

    Attributes:
        rules: The first rule that knows a name decides.
        ignored: Names that are in such files and not in the model, each for a reason.
        surplus: Parameters that the file may have more of than the model: layers past the last.
    """

    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()

    def rule_for(self, source: str) -> tuple[Rule, str] | None:
        """Return the rule that knows a tensor, and the parameter that it becomes."""
        for rule in self.rules:
            target = rule.target_of(source)
            if target is not None:
                return rule, target
        return None

    def ignores(self, source: str) -> bool:
        """Return whether the model has no use for a tensor."""
        return any(_pattern(name).fullmatch(source) for name in self.ignored)

    def has_surplus(self, target: str) -> bool:
        """Return whether the model may lack a parameter that the file has."""
        return any(_pattern(name).fullmatch(target) for name in self.surplus)

    def sources_of(self, target: str) -> list[tuple[str, Rule]]:
        """Return the names under which this part holds a parameter, the rule for each."""
        return [
            (source, rule)
            for rule in self.rules
            if (source := rule.source_of(target)) is not None
            and self.rule_for(source) == (rule, target)
        ]


def renamed(source: str, target: str, names: Iterable[str]) -> tuple[Rule, ...]:
    """Return rules for names that stand under one prefix here and under another there."""
    return tuple(Rule(source + name, target + name) for name in names)


@cache
def _pattern(name: str) -> re.Pattern[str]:
    escaped = re.escape(name)
    for placeholder, pattern in PLACEHOLDERS.items():
        escaped = escaped.replace(re.escape(placeholder), pattern)
    return re.compile(escaped)


def _filled(name: str, found: re.Match[str]) -> str:
    values: Mapping[str, str] = found.groupdict()
    for key, value in values.items():
        name = name.replace("{" + key + "}", value)
    return name
