"""Map the tensors of original files to a model's parameters, checking names and shapes.

A rule is a pair of names with placefilled_by, "blocks.{i}.mlp.fc1.{p}" and
"vision_model.encoder.layers.{i}.mlp.fc1.{p}", and is used in both directions: forward to convert,
and backward to name missing tensors as the file would. A tensor without a rule, or a parameter
without a tensor, is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from models.errors import ModelError
from models.library_errors import one_line

PLACEHOLDERS: Final = {
    "{i}": r"(?P<i>\d+)",  # index of a layer
    "{p}": r"(?P<p>weight|bias)",
    "{rest}": r"(?P<rest>.+)",
}
THIRDS: Final = 3  # query, key and value


@dataclass(frozen=True)
class Rule:
    """Map a tensor's name in the file to the parameter's name in the model.

    With a `qkv_slot`, the tensor is this third (0, 1 or 2) of the target's rows, as in a fused
    query, key and value; thirds without a rule are zero.
    """

    source: str
    target: str
    qkv_slot: int | None = None


@dataclass(frozen=True)
class PartRules:
    """How one part of a checkpoint is read."""

    rules: tuple[Rule, ...]  # the first that matches a name applies
    ignored: tuple[str, ...] = ()  # names in such files that the model does not use
    surplus: tuple[str, ...] = ()  # parameters that the model may lack, of layers that it omits

    def rule_for(self, source: str) -> tuple[Rule, str] | None:
        """Return the rule that matches a tensor, and the parameter that it becomes."""
        for rule in self.rules:
            if (target := _rename(source, rule.source, rule.target)) is not None:
                return rule, target
        return None


def rename_rules(source: str, target: str, names: Iterable[str]) -> tuple[Rule, ...]:
    """Return rules for names whose prefix differs between file and model."""
    return tuple(Rule(source + name, target + name) for name in names)


Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a tensor goes: a parameter, or a third of its rows."""

    target: str
    qkv_slot: int | None = None


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
        layout: Rules of each part, in reading order; tensors of a later part replace those of an
            earlier one.
        shapes: Shape of every tensor of each part.
        names: Path or hub id of each part, for messages.
    Raises:
        ModelError: Naming what is unexpected, missing or of another shape.
    """
    plan: Plan = {}
    for part, rules in layout.items():
        found = _plan_part(expected, rules, shapes[part], f"{part} ({names[part]})")
        replaced = set(found.values())
        for earlier, kept in plan.items():
            plan[earlier] = {source: to for source, to in kept.items() if to not in replaced}
        plan[part] = found
    filled = {destination for found in plan.values() for destination in found.values()}
    missing = [
        (part, source)
        for target in expected
        for part, source, rule in originals(target, layout)
        if Destination(target, rule.qkv_slot) not in filled
    ]
    if missing:
        part, source = missing[0]
        raise ModelError(
            f"{part} ({names[part]}) lacks {source}{_others(missing)} of the {len(expected)} "
            "weights of this model; it is incomplete or of another model: download it again, or "
            "name the right one"
        )
    return plan


def _plan_part(
    expected: Shapes, rules: PartRules, shapes: Shapes, where: str
) -> dict[str, Destination]:
    """Return the destinations of one part's tensors."""
    found: dict[str, Destination] = {}
    filled_by: dict[Destination, str] = {}
    unexpected = []
    for source, shape in shapes.items():
        if _matches(source, rules.ignored):
            continue
        match = rules.rule_for(source)
        if match is None or match[1] not in expected:
            if match is None or not _matches(match[1], rules.surplus):
                unexpected.append(source)
            continue
        rule, target = match
        destination = Destination(target, rule.qkv_slot)
        if destination in filled_by:
            raise ModelError(
                f"{where} contains the same weights twice, as {filled_by[destination]} and "
                f"{source}; download it again"
            )
        needed = source_shape(expected[target], rule)
        if shape != needed:
            raise ModelError(
                f"{where} contains {source} of shape {shape}, but the model needs {needed}; it "
                "belongs to a model of another size"
            )
        found[source] = destination
        filled_by[destination] = source
    if unexpected:
        raise ModelError(
            f"{where} contains {one_line(unexpected[0])}{_others(unexpected)}, which this model "
            "does not have; it is of another model or another kind of file: name the right one"
        )
    return found


def source_shape(target: Shape, rule: Rule) -> Shape:
    """Return the shape that a tensor of the file must have to fill a parameter by a rule."""
    return target if rule.qkv_slot is None else (target[0] // THIRDS, *target[1:])


def originals(target: str, layout: Mapping[str, PartRules]) -> list[tuple[str, str, Rule]]:
    """Return (part, name, rule) of the tensors that fill a parameter, in the first part that can.

    Raises:
        ModelError: If no rule of the layout leads to the parameter.
    """
    for part, rules in layout.items():
        found = [
            (part, source, rule)
            for rule in rules.rules
            if (source := _rename(target, rule.target, rule.source)) is not None
            and rules.rule_for(source) == (rule, target)
        ]
        if found:
            return [one for one in found if one[2].qkv_slot is None][:1] or found
    raise ModelError(f"no rule leads to {target}; this layout can't make the model")


def _others(names: list[Any]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(_pattern(pattern).fullmatch(name) for pattern in patterns)


def _rename(name: str, old: str, new: str) -> str | None:
    """Rename from pattern `old` to pattern `new`; None if the name does not match."""
    found = _pattern(old).fullmatch(name)
    return None if found is None else new.format(**found.groupdict())


@cache
def _pattern(name: str) -> re.Pattern[str]:
    escaped = re.escape(name)
    for placeholder, pattern in PLACEHOLDERS.items():
        escaped = escaped.replace(re.escape(placeholder), pattern)
    return re.compile(escaped)
