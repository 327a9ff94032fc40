"""Classify a modeling file by its content, and build our file for a place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from eah.build import DROP_IN
from eah.drop_in.names import LAZY_EXPORTS
from eah.swap.place import Place, SwapError

SOURCE: Final = DROP_IN
FAMILY: Final = "llama"
VERSION_LINE: Final = re.compile(r'^VERSION: Final = "(.+)"\r?$', re.MULTILINE)
EXPORTS: Final = re.compile(r"^__all__ = \[(.*?)\]", re.MULTILINE | re.DOTALL)
MODEL: Final = re.compile(r"^(class (\w+Model)\b.*?)(?=^class |\Z)", re.MULTILINE | re.DOTALL)
IMPORTED: Final = re.compile(r"^from transformers\.models\.\w+\.modeling_\w+ import", re.MULTILINE)
ATTENTIONS: Final = ("softmax(", "scaled_dot_product_attention", "ALL_ATTENTION")
# The authors' release reads its settings there; transformers' own llama, mistral and qwen2 don't.
ENVIRONMENT: Final = ("os.environ", "os.getenv")


def sha256(content: bytes) -> str:
    """Return a checksum as sha256sum prints it."""
    return hashlib.sha256(content).hexdigest()


def is_ours(content: bytes) -> bool:
    """Return whether this is EAH's file, of any version."""
    return b"SharingAttention" in content and version_of(content) is not None


def version_of(content: bytes) -> str | None:
    """Return EAH's version in its file."""
    found = VERSION_LINE.search(content.decode(errors="replace"))
    return found and found[1]


def same_text(content: bytes, other: bytes) -> bool:
    """Return whether two files are equal up to line endings, which git may change."""
    return content.replace(b"\r\n", b"\n") == other.replace(b"\r\n", b"\n")


def looks_original(place: Place, content: bytes) -> bool:
    """Return whether a file of unknown origin looks like the original."""
    text = content.decode(errors="replace")
    if is_ours(content) or any(name in text for name in ENVIRONMENT):
        return False
    if place.package is None:
        return why_unsupported(place, text) is None
    name = place.family.replace("_", "") + "model"
    return name in {found.lower() for _, found in MODEL.findall(text)}


def why_unsupported(place: Place, text: str) -> str | None:
    """Return why the attention of a modeling file can't be shared, or None."""
    models = [found for found in MODEL.findall(text) if not found[1].endswith("PreTrainedModel")]
    if not models and place.package is None and IMPORTED.search(text):
        return (
            f"{place.file} builds on the model of transformers and defines none; swap the file of "
            "that transformers: python -m eah.swap install --python PYTHON"
        )
    if len(models) != 1 or "self.layers = " not in models[0][0] or "self.self_attn" not in text:
        names = ", ".join(name for _, name in models) or "no model"
        return (
            f"{place.file.name} defines {names}; EAH's file replaces one that defines a single "
            "model, a stack of decoder layers, as llama, mistral and qwen2 do"
        )
    if not any(attention in text for attention in ATTENTIONS):
        return (
            f"the attention of {place.file.name} has neither softmax nor "
            "scaled_dot_product_attention, which EAH's file needs to share a head; use llama"
        )
    return None


def validate_supported(place: Place, content: bytes) -> None:
    """Refuse a file whose attention can't be shared.

    Raises:
        SwapError: With the reason.
    """
    if reason := why_unsupported(place, content.decode(errors="replace")):
        raise SwapError(reason)


def drop_in_for(place: Place, original: bytes | None = None) -> str:
    """Return the text of our file for a place.

    The names that transformers searches for in the text are those of the replaced file.

    Args:
        place: Where the file will be.
        original: Content of the file that it replaces; None for the current one.
    """
    text = SOURCE.read_text(encoding="utf-8")
    if place.package is None or place.family == FAMILY:
        return text
    if original is None:
        kept = place.original if place.original.is_file() else place.file
        original = kept.read_bytes() if kept.is_file() else b""
    exports = EXPORTS.search(original.decode(errors="replace"))
    names = re.findall(r"\w+", exports[1]) if exports else []  # none before 4.48, and none needed
    return text.replace(LAZY_EXPORTS, lazy_exports(sorted(names)))


def lazy_exports(names: Sequence[str]) -> str:
    """Return the text by which transformers finds names in our file (see LAZY_EXPORTS there)."""
    lines = []
    for decorator in ("export", "requires"):  # until 4.48, since 4.49
        lines += [f'@{decorator}(backends=("torch",))', "class SharingAttention("]
        for name in names:
            lines += [f'@{decorator}(backends=("torch", "tokenizers"))', f"class {name}("]
    return "\n" + "\n".join(lines) + "\n"
