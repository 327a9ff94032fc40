"""Describe which layers an expression such as model.layers[i].self_attn refers to."""

from __future__ import annotations

import ast
from collections.abc import Sequence


def layers_of(owner: ast.expr, around: Sequence[ast.AST]) -> str:
    """Return the layers in words.

    Args:
        owner: Expression of an attention module, or of its layer.
        around: The statements around it, outermost first.
    """
    for node in ast.walk(owner):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("layers"):
            return _describe_index(node.slice, around)
    variables = {node.id for node in ast.walk(owner) if isinstance(node, ast.Name)}
    for loop in _loops(around):
        if variables & _targets(loop):
            return _describe_iterable(loop.iter)
    return "layers not known from the code"


def _describe_index(index: ast.expr, around: Sequence[ast.AST]) -> str:
    if isinstance(index, ast.Constant):
        return f"layer {index.value!r}"
    for loop in _loops(around):
        if isinstance(index, ast.Name) and index.id in _targets(loop):
            return _describe_iterable(loop.iter)
    return f"layer {ast.unparse(index)}"


def _describe_iterable(iterable: ast.expr) -> str:
    text = ast.unparse(iterable)
    if isinstance(iterable, ast.Call) and ast.unparse(iterable.func) == "enumerate":
        return _describe_iterable(iterable.args[0])
    if isinstance(iterable, ast.Call) and ast.unparse(iterable.func) == "range":
        numbers = [
            arg.value
            for arg in iterable.args
            if isinstance(arg, ast.Constant) and isinstance(arg.value, int)
        ]
        if len(numbers) == len(iterable.args) <= 2:
            start, stop = [0, *numbers][-2:]
            return f"layers {start} to {stop - 1}"
        return "every layer" if ast.unparse(iterable).endswith("layers))") else f"layers in {text}"
    if "modules()" in text:
        return "every layer that passes the test there"
    return "every layer" if text.endswith("layers") else f"layers in {text}"


def _loops(around: Sequence[ast.AST]) -> list[ast.For]:
    return [node for node in reversed(around) if isinstance(node, ast.For)]


def _targets(loop: ast.For) -> set[str]:
    return {node.id for node in ast.walk(loop.target) if isinstance(node, ast.Name)}
