"""Code that replaces attention, or LlamaModel.forward, in models or in transformers' classes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from eah.swap.reach.classes import VISION
from eah.swap.reach.findings import Finding, Kind
from eah.swap.reach.kernels import hides_its_map
from eah.swap.reach.layers import layers_of
from eah.swap.reach.names import ATTENTION, MODEL, Functions, Names, last

TABLES: Final = re.compile(r"(LLAMA|MISTRAL|QWEN2)_ATTENTION_CLASSES")
FUNCTIONS: Final = ("ALL_ATTENTION_FUNCTIONS", "AttentionInterface")
OTHER_STACKS: Final = re.compile(r"\.decoder\.|\bdecoder\.layers")  # OPT's, BART's, T5's
KEPT: Final = re.compile(r"\b_*(orig|old|original|saved|backup)\w*", re.IGNORECASE)
PATCHED: Final = re.compile(r".*\bmodeling_(llama|mistral|qwen2)\.\w*Attention\w*(\.forward)?")


class Replacements(ast.NodeVisitor):
    """Collects assignments, and calls that act as one, that put other code where EAH acts."""

    def __init__(self, names: Names, functions: Functions) -> None:
        """Take the names of a file, and the functions whose code is available."""
        self.names, self.functions = names, functions
        self.found: list[Finding] = []
        self.around: list[ast.AST] = []

    def generic_visit(self, node: ast.AST) -> None:
        """Visit the children of a node, and record the nodes around them."""
        self.around.append(node)
        super().generic_visit(node)
        self.around.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        """Look at each target of an assignment."""
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple):
                values = node.value.elts if isinstance(node.value, ast.Tuple) else []
                values = values if len(values) == len(target.elts) else [node.value] * 99
                pairs = list(zip(target.elts, values, strict=False))
            for place, value in pairs:
                self._assign(place, value, node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Look at setattr, at the update of a table, and at the registration of a kernel."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else self._name(node.func)
        owner = self._name(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        texts = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
        if name in ("setattr", "__setattr__") and len(node.args) == 3 and texts:
            target = ast.Attribute(node.args[0], str(texts[0]), ast.Store())
            self._assign(target, node.args[2], node)
        elif name in ("setattr", "patch") and texts and PATCHED.fullmatch(str(texts[0])):
            value = node.args[1] if len(node.args) > 1 else node
            self._class_forward(str(texts[0]).removesuffix(".forward"), value, node)
        elif name == "update" and TABLES.fullmatch(last(owner)):
            self._add(Kind.ATTENTION, node, f"{ast.unparse(node.func)}(...)", is_module=True)
        elif name == "register" and last(owner) in FUNCTIONS and len(node.args) == 2:
            self._kernel(node.args[1], node)
        self.generic_visit(node)

    def _assign(self, target: ast.expr, value: ast.expr, node: ast.stmt | ast.expr) -> None:
        if isinstance(target, ast.Subscript):
            table = last(self._name(target.value))
            if TABLES.fullmatch(table):
                self._add(Kind.ATTENTION, node, _short(target, value), is_module=True)
            elif table in FUNCTIONS:
                self._kernel(value, node)
        if not isinstance(target, ast.Attribute):
            return
        owner = self._name(target.value)
        if target.attr == "forward" and ATTENTION.fullmatch(last(owner)):
            self._class_forward(owner, value, node)
        elif target.attr == "forward" and MODEL.fullmatch(last(owner)):
            if not self._keeps(target, value):
                self._add(Kind.MODEL, node, _short(target, value), is_module=True)
        elif target.attr in ("forward", "__class__") and self._is_attention(target.value):
            if not self._keeps(target, value):
                self._add_in_layers(target, value, node)
        elif target.attr == "self_attn" and self._is_of_a_layer(target):
            self._add_in_layers(target, value, node)
        elif ATTENTION.fullmatch(target.attr) and "modeling_" in owner:
            self._add(Kind.ATTENTION, node, _short(target, value), is_module=True)

    def _class_forward(self, owner: str, value: ast.expr, node: ast.stmt | ast.expr) -> None:
        """Note a forward for all models, unless EAH sees the attention map in it."""
        code = self._code(value)
        target = ast.Attribute(ast.Name(last(owner)), "forward")
        if self._keeps(target, value) or (code is not None and not hides_its_map(code)):
            return
        what = _short(target, value) if value is not node else f"{last(owner)}.forward patched"
        self._add(Kind.ATTENTION, node, f"{what} (every layer)", is_module=True)

    def _kernel(self, value: ast.expr, node: ast.stmt | ast.expr) -> None:
        """Note a kernel added to transformers' table, unless EAH sees the map in it."""
        code = self._code(value)
        if code is None or hides_its_map(code):
            text = ast.unparse(node if isinstance(node, ast.expr) else value)
            self._add(Kind.ATTENTION, node, f"attention kernel added: {text}", is_module=True)

    def _is_attention(self, owner: ast.expr) -> bool:
        """Return whether an expression is the attention of a decoder layer."""
        text = ast.unparse(owner)
        if VISION.search(text) or OTHER_STACKS.search(text):
            return False
        if text.endswith(".self_attn"):
            return True
        if not isinstance(owner, ast.Name):
            return False
        scope = next(
            (n for n in reversed(self.around) if isinstance(n, ast.For | ast.FunctionDef)), None
        )
        return any(
            _is_attention_variable(node, owner.id) for node in ast.walk(scope or ast.Module([], []))
        )

    def _is_of_a_layer(self, target: ast.Attribute) -> bool:
        """Return whether `x.self_attn = ...` replaces it, instead of defining a layer's own."""
        text = ast.unparse(target.value)
        if VISION.search(text) or OTHER_STACKS.search(f"{text}."):
            return False
        classes = [node for node in self.around if isinstance(node, ast.ClassDef)]
        if text != "self" or not classes:
            return text != "self"
        return any(
            re.fullmatch(r"transformers\..*(Llama|Mistral|Qwen2)DecoderLayer", self._name(base))
            for base in classes[-1].bases
        )

    def _keeps(self, target: ast.Attribute, value: ast.expr) -> bool:
        """Return whether a value restores the forward that was there, or runs it."""
        text = ast.unparse(value)
        code = self._code(value)
        calls = [node for node in ast.walk(code or value) if isinstance(node, ast.Call)]
        return (
            ast.unparse(target) in text
            or KEPT.search(text) is not None
            or any(KEPT.search(ast.unparse(call.func)) for call in calls)
        )

    def _code(self, value: ast.expr) -> ast.AST | None:
        """Return the function that a value names, if its code is available."""
        if isinstance(value, ast.Lambda):
            return value
        if isinstance(value, ast.Call):
            if isinstance(value.func, ast.Attribute) and value.func.attr == "__get__":
                return self._code(value.func.value)
            return self._code(value.func) or next(map(self._code, value.args), None)
        name = self._name(value)
        if name.partition(".")[0] in self.names.classes or name in self.functions.own:
            return self.functions.own.get(name)
        return self.functions.elsewhere.get(last(name)) if "." in name else None

    def _name(self, node: ast.AST) -> str:
        return self.names.dotted(node)

    def _add(
        self, kind: Kind, node: ast.stmt | ast.expr, what: str, *, is_module: bool = False
    ) -> None:
        self.found.append(Finding(kind, node.lineno, what, is_module))

    def _add_in_layers(
        self, target: ast.Attribute, value: ast.expr, node: ast.stmt | ast.expr
    ) -> None:
        layers = layers_of(target.value, self.around)
        self._add(Kind.ATTENTION, node, f"{_short(target, value)} ({layers})", is_module=True)


def replacement_findings(tree: ast.Module, names: Names, functions: Functions) -> Iterator[Finding]:
    """Yield the lines of a file that replace attention or LlamaModel.forward."""
    visitor = Replacements(names, functions)
    visitor.visit(tree)
    yield from visitor.found


def _is_attention_variable(node: ast.AST, name: str) -> bool:
    """Return whether code shows that a variable is a layer's attention."""
    if isinstance(node, ast.Assign) and ast.unparse(node.value).endswith(".self_attn"):
        is_decoder = not (
            VISION.search(text := ast.unparse(node.value)) or OTHER_STACKS.search(text)
        )
        return is_decoder and any(ast.unparse(target) == name for target in node.targets)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
        return ast.unparse(node.args[0]) == name and ATTENTION.search(ast.unparse(node)) is not None
    if isinstance(node, ast.Compare) and name in ast.unparse(node):
        return ATTENTION.search(ast.unparse(node)) is not None
    return False


def _short(target: ast.expr, value: ast.expr) -> str:
    text = ast.unparse(value)
    if isinstance(value, ast.Call) and value.args:
        rest = ", ..." if len(value.args) + len(value.keywords) > 1 else ""
        text = f"{ast.unparse(value.func)}({ast.unparse(value.args[0])}{rest})"
    text = f"{ast.unparse(target)} = {' '.join(text.split())}"
    return text if len(text) <= 100 else f"{text[:97]}..."
