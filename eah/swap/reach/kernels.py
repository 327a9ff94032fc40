"""Attention kernels that hide their map: in functions, and requested by name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Final

from eah.swap.reach.classes import VISION
from eah.swap.reach.findings import Finding, Kind

SEEN: Final = {"softmax", "scaled_dot_product_attention"}
HIDDEN: Final = re.compile(
    r"flash_?attn|flash_attention|xformers|^xops$|memory_efficient|varlen|unpad_input|flex_attention"
    r"|sageattn|triton",
    re.IGNORECASE,
)
KERNEL: Final = re.compile(r"flash|flex|paged", re.IGNORECASE)
ARGUMENT: Final = re.compile(r"-*_?attn[-_]implementation")
SWITCH: Final = "use_flash_attention_2"


def hides_its_map(function: ast.AST) -> bool:
    """Return whether a function attends without the functions of torch that EAH intercepts."""
    words = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    words |= {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
    return not words & SEEN or any(HIDDEN.search(word) for word in words)


def kernel_findings(tree: ast.Module, path: str) -> Iterator[Finding]:
    """Yield the lines of a file that request a kernel that hides its map."""
    use = " (training, by its path)" if re.search(r"train|finetune", path) else ""
    for node in ast.walk(tree):
        for name, value, line in _settings(node):
            is_kernel = ARGUMENT.fullmatch(name) and KERNEL.search(str(value))
            if is_kernel or (name.lstrip("_") == SWITCH and value is True):
                yield Finding(Kind.FLASH, line, f"{name.lstrip('-')}={value!r}{use}")


def _settings(node: ast.AST) -> Iterator[tuple[str, object, int]]:
    """Yield names that a node sets to a constant: arguments, keys, attributes, defaults."""
    pairs: list[tuple[object, ast.AST | None]] = []
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if not VISION.search(called):
            pairs += [(keyword.arg, keyword.value) for keyword in node.keywords]
        names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        if called.endswith("add_argument"):
            pairs += [
                (name, k.value) for name in names for k in node.keywords if k.arg == "default"
            ]
        elif called.endswith("setattr") and len(node.args) == 3:
            pairs += [(name, node.args[2]) for name in names[:1]]
    elif isinstance(node, ast.Dict):
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        pairs += zip(keys, node.values, strict=True)
    elif isinstance(node, ast.Assign):
        pairs += [(_target(target), node.value) for target in node.targets]
    elif isinstance(node, ast.AnnAssign):
        pairs.append((_target(node.target), node.value))
    elif isinstance(node, ast.FunctionDef):
        arguments = [*node.args.posonlyargs, *node.args.args]
        defaults = node.args.defaults
        named = arguments[len(arguments) - len(defaults) :]
        pairs += [(a.arg, d) for a, d in zip(named, defaults, strict=True)]
        pairs += [
            (a.arg, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        ]
    for name, value in pairs:
        for choice in _choices(value):
            if isinstance(name, str) and isinstance(choice, ast.Constant):
                yield name, choice.value, choice.lineno


def _choices(value: ast.AST | None) -> Sequence[ast.AST | None]:
    """Return what a value may be, such as both values of `a if x else b`."""
    if isinstance(value, ast.IfExp):
        return (*_choices(value.body), *_choices(value.orelse))
    return value.values if isinstance(value, ast.BoolOp) else (value,)


def _target(target: ast.expr) -> str:
    """Return the name, attribute or key that is assigned to."""
    if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        return "" if VISION.search(ast.unparse(target.value)) else str(target.slice.value)
    if isinstance(target, ast.Attribute):
        return "" if VISION.search(ast.unparse(target.value)) else target.attr
    return target.id if isinstance(target, ast.Name) else ""
