"""Wrappers of the paper's vision-language models: prompt, preprocessing and generation.

import models

vlm = models.load("llava-1.5", checkpoint="llava-hf/llava-1.5-7b-hf")
print(vlm.generate("cat.jpg", "Describe this image in detail.", max_new_tokens=100))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from models.errors import ModelError
from models.settings import PARTS, ModelSettings, available, model_settings

if TYPE_CHECKING:
    from models.base import VLM
    from models.generation import Decoding, ShownPrompt
    from models.loading import (
        Description,
        describe,
        load,
        recognise,
        show_prompt,
        wrapper_of,
    )

# Looked up when first used: torch takes seconds to import, and the commands' flags need none of it.
_LAZY: Final = {
    "VLM": "models.base",
    **dict.fromkeys(("Decoding", "ShownPrompt"), "models.generation"),
    **dict.fromkeys(("Description", "describe", "load"), "models.loading"),
    **dict.fromkeys(("recognise", "show_prompt", "wrapper_of"), "models.loading"),
}

__all__ = [
    "PARTS",
    "VLM",
    "Decoding",
    "Description",
    "ModelError",
    "ModelSettings",
    "ShownPrompt",
    "available",
    "describe",
    "load",
    "model_settings",
    "recognise",
    "show_prompt",
    "wrapper_of",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module."""
    if name not in _LAZY:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    """Return all names, including those not imported yet."""
    return sorted({*globals(), *__all__})
