"""Check the results of a user's own rule and own `apply` function."""

from __future__ import annotations

from typing import Any

import torch

from eah.errors import EAHConfigError
from eah.method import NO_HEAD, Choice, Columns


def run_rule(rule: Any, columns: Columns, image: torch.Tensor) -> Choice:
    """Run a user's own rule and return its choice, if it is valid."""
    choice = rule(columns, image)
    batch, heads = columns.attention.shape[:2]
    found = [getattr(choice, name, None) for name in ("head", "counts")]
    shapes = [tuple(part.shape) if isinstance(part, torch.Tensor) else part for part in found]
    if not isinstance(choice, Choice) or shapes != [(batch,), (batch, heads)]:
        raise EAHConfigError(
            f"the rule returned a {type(choice).__name__} with head and counts of shapes {shapes}; "
            f"a rule returns an eah.method.Choice with head of shape ({batch},) and counts of "
            f"({batch}, {heads})"
        )
    head = choice.head
    if head.is_floating_point() or bool(((head < NO_HEAD) | (head >= heads)).any()):
        raise EAHConfigError(
            f"the rule chose heads {head.tolist()}, but a head is an index from 0 to {heads - 1}, "
            "or -1 for none"
        )
    return choice


def check_output(output: object, query: torch.Tensor, value: torch.Tensor) -> None:
    """Refuse an invalid result of a user's own `apply` function."""
    batch, heads, rows, _ = query.shape
    wanted = (batch, rows, heads, value.shape[-1])
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != wanted:
        raise EAHConfigError(
            f"apply returned {found}; it must return the layer's output of shape {wanted}, as "
            "attend does"
        )
