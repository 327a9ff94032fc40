"""Find classes in the folder: copies of Llama's, subclasses that bypass EAH, other decoders."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from eah.swap.reach.findings import Finding, Kind
from eah.swap.reach.names import ATTENTION, MODEL, Names, last
from eah.swap.reach.sources import Source

# Family as its classes spell it, in lower case -> name of its folder in transformers, for --model.
SWAPPABLE: Final = {
    "mistral": "mistral", "mixtral": "mixtral", "qwen2": "qwen2", "qwen3": "qwen3",
    "gemma": "gemma", "gemma2": "gemma2", "phi": "phi", "phi3": "phi3", "cohere": "cohere",
    "stablelm": "stablelm", "starcoder2": "starcoder2", "olmo": "olmo",
}  # fmt: skip
OTHERS: Final = {
    "mpt", "opt", "t5", "mt5", "qwen", "gpt2", "gptneo", "gptneox", "gptj", "bloom", "falcon",
    "rwforcausallm", "internlm", "internlm2", "baichuan", "chatglm", "bart",
}  # fmt: skip
DECODER: Final = re.compile(r"(\w+?)(ForCausalLM|ForConditionalGeneration|LMHeadModel)")
OWN_ATTENTION: Final = re.compile(r"\w*llama\w*attention\w{0,3}", re.IGNORECASE)
PROJECTIONS: Final = ({"q_proj", "k_proj", "v_proj", "o_proj"}, {"wq", "wk", "wv", "wo"})
ROTARY: Final = re.compile(r"rotary|rope|freqs_cis", re.IGNORECASE)
VISION: Final = re.compile(r"vision|visual|clip|siglip|encoder|vit\b|vit_|qformer", re.IGNORECASE)


def class_findings(source: Source, names: Names) -> Iterator[Finding]:
    """Yield the classes of a file that a swap can't reach."""
    attentions = [node for node in names.classes.values() if _is_own_attention(node, source, names)]
    if attentions:
        yield _copy(attentions, names)
    families = set()
    for node in sorted(names.classes.values(), key=lambda node: node.lineno):
        bases = [names.dotted(base) for base in node.bases]
        if any(_is_theirs(base, names) and ATTENTION.fullmatch(last(base)) for base in bases):
            yield Finding(Kind.ATTENTION, node.lineno, _header(node), is_module=True)
        elif _is_model(node, names) and _bypasses(node):
            line = _methods(node)["forward"].lineno
            yield Finding(Kind.MODEL, line, f"{_header(node)}: forward without super().forward()")
        family = _other_family(node, bases)
        derives = any(DECODER.fullmatch(last(base)) for base in bases)
        if family and family not in families and (derives or not attentions):
            families.add(family)
            yield _other(node, family if derives else "")


def _copy(attentions: list[ast.ClassDef], names: Names) -> Finding:
    first = min(attentions, key=lambda node: node.lineno)
    models = sorted(
        name
        for name, node in names.classes.items()
        if name.endswith("Model")
        and not name.endswith("PreTrainedModel")
        and "self.layers" in ast.unparse(node)
    )
    rest = f", with {', '.join(models)}" if models else ", without a model class"
    return Finding(Kind.COPY, first.lineno, f"class {first.name}{rest}", is_module=True)


def _is_own_attention(node: ast.ClassDef, source: Source, names: Names) -> bool:
    """Return whether a class is Llama-like attention without a base class from transformers.

    Judged by its name, or by projections with Llama's names together with rotary embeddings.
    """
    methods = _methods(node)
    bases = [last(names.dotted(base)) for base in node.bases]
    if "forward" not in methods or any("ttention" in base for base in bases):
        return False
    if OWN_ATTENTION.fullmatch(node.name):
        return True
    if VISION.search(f"{source.path} {node.name}") or "__init__" not in methods:
        return False
    attributes = {
        target.attr
        for assign in ast.walk(methods["__init__"])
        if isinstance(assign, ast.Assign)
        for target in assign.targets
        if isinstance(target, ast.Attribute)
    }
    is_llama = any(projections <= attributes for projections in PROJECTIONS)
    return is_llama and ROTARY.search(ast.unparse(node)) is not None


def _is_theirs(base: str, names: Names) -> bool:
    """Return whether a base is a class of transformers, as far as the file tells."""
    return base.startswith("transformers.") or ("." not in base and base not in names.classes)


def _is_model(node: ast.ClassDef, names: Names) -> bool:
    """Return whether a class derives from transformers' LlamaModel."""
    seen: set[str] = set()
    open_nodes = [node]
    while open_nodes:
        current = open_nodes.pop()
        seen.add(current.name)
        for base in current.bases:
            name = names.dotted(base)
            if name in names.classes and name not in seen:
                open_nodes.append(names.classes[name])
            elif _is_theirs(name, names) and MODEL.fullmatch(last(name)):
                return True
    return False


def _bypasses(node: ast.ClassDef) -> bool:
    """Return whether a class has a forward that does not call that of a base."""
    forward = _methods(node).get("forward")
    if forward is None:
        return False
    bases = {ast.unparse(base) for base in node.bases}
    for call in ast.walk(forward):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            owner = ast.unparse(call.func.value)
            if call.func.attr == "forward" and (owner.startswith("super(") or owner in bases):
                return False
    return True


def _other_family(node: ast.ClassDef, bases: list[str]) -> str:
    """Return the family of a decoder that is not Llama; "" for all other classes."""
    for name in (*map(last, bases), node.name):
        match = DECODER.fullmatch(name)
        if match and match[1].lower() in SWAPPABLE.keys() | OTHERS:
            return match[1].lower()
    return ""


def _other(node: ast.ClassDef, family: str) -> Finding:
    if family in SWAPPABLE:
        what = f"{_header(node)}: --model {SWAPPABLE[family]}"
        return Finding(Kind.SWAPPABLE, node.lineno, what)
    return Finding(Kind.OTHER, node.lineno, _header(node))


def _methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {child.name: child for child in node.body if isinstance(child, ast.FunctionDef)}


def _header(node: ast.ClassDef) -> str:
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    return f"class {node.name}({bases})" if bases else f"class {node.name}"
