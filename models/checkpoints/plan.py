"""Match the tensors of original files with a model's parameters: all, each once, and in shape.

A rule is a pair of names with placeholders, "blocks.{i}.mlp.fc1.{p}" and
"vision_model.encoder.layers.{i}.mlp.fc1.{p}", and reads in both directions: forward to convert, and
backward to name in the file's own words what it lacks. Nothing stays as it was initialised and
nothing is dropped in silence: a tensor that no rule knows, or a parameter that no tensor fills, is
an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

from models.errors import ModelError

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


def rename_rules(source: str, target: str, names: Iterable[str]) -> tuple[Rule, ...]:
    """Return rules for names that stand under one prefix here and under another there."""
    return tuple(Rule(source + name, target + name) for name in names)


THIRDS: Final = 3  # query, key and value

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a tensor goes: a parameter, or a third of its rows."""

    target: str
    third: int | None = None


Plan = dict[str, dict[str, Destination]]
"""By part: tensor name -> destination."""


def plan_tensors(
    expected: Shapes,
    layout: Mapping[str, PartRules],
    shapes: Mapping[str, Shapes],
    names: Mapping[str, str],
) -> Plan:
    """Decide which tensor fills which parameter.

    Args:
        expected: Shape of every parameter of the model.
        layout: Rules of each part, in reading order; what a later part holds replaces what an
            earlier one did.
        shapes: Shape of every tensor of each part.
        names: Where each part is, for messages.
    Raises:
        ModelError: Naming what is unexpected, missing or of another shape.
    """
    plan: Plan = {}
    for part, rules in layout.items():
        plan[part] = _destinations(expected, rules, shapes[part], f"{part} ({names[part]})")
        replaced = set(plan[part].values())
        for earlier in list(plan)[:-1]:
            plan[earlier] = {
                source: destination
                for source, destination in plan[earlier].items()
                if destination not in replaced
            }
    missing = _missing(expected, layout, plan)
    if missing:
        part, source = missing[0]
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"{part} ({names[part]}) lacks {source}{others} of the {len(expected)} weights of this "
            "model; it is incomplete or of another model: download it again, or name the right one"
        )
    return plan


def _destinations(
    expected: Shapes, rules: PartRules, shapes: Shapes, where: str
) -> dict[str, Destination]:
    """Return where the tensors of one part go."""
    found: dict[str, Destination] = {}
    holders: dict[Destination, str] = {}
    unexpected = []
    for source, shape in shapes.items():
        if rules.ignores(source):
            continue
        match = rules.rule_for(source)
        if match is not None and match[1] not in expected and rules.has_surplus(match[1]):
            continue
        if match is None or match[1] not in expected:
            unexpected.append(source)
            continue
        rule, target = match
        destination = Destination(target, rule.third)
        if destination in holders:
            raise ModelError(
                f"{where} holds the same weights twice, as {holders[destination]} and {source}; "
                "download it again"
            )
        if shape != source_shape(expected[target], rule):
            raise ModelError(
                f"{where} holds {source} of shape {shape}, but the model needs "
                f"{source_shape(expected[target], rule)}; it belongs to a model of another size"
            )
        found[source] = destination
        holders[destination] = source
    if unexpected:
        others = f" and {len(unexpected) - 1} more" if len(unexpected) > 1 else ""
        raise ModelError(
            f"{where} holds {unexpected[0]}{others}, which this model does not have; it is of "
            "another model, or a file of another kind: name the right one"
        )
    return found


def source_shape(target: Shape, rule: Rule) -> Shape:
    """Return the shape that a tensor of the file must have to fill a parameter by a rule."""
    return target if rule.third is None else (target[0] // THIRDS, *target[1:])


def _missing(
    expected: Shapes, layout: Mapping[str, PartRules], plan: Plan
) -> list[tuple[str, str]]:
    """Return (part, name in its file) of what no part holds."""
    filled = {destination for found in plan.values() for destination in found.values()}
    return [
        (part, source)
        for target in expected
        for part, source, rule in originals(target, layout)
        if Destination(target, rule.third) not in filled
    ]


def originals(target: str, layout: Mapping[str, PartRules]) -> list[tuple[str, str, Rule]]:
    """Return (part, name, rule) of the tensors that fill a parameter, in the first part that can.

    Raises:
        ModelError: If no rule of the layout leads to the parameter.
    """
    for part, rules in layout.items():
        found = rules.sources_of(target)
        if found:
            whole = [(part, source, rule) for source, rule in found if rule.third is None]
            return whole[:1] or [(part, source, rule) for source, rule in found]
    raise ModelError(f"no rule leads to {target}; this layout can't make the model")


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
