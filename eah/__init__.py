"""EAH reduces object hallucination: all heads of a shallow layer use one head's attention map.

import eah

with eah.enabled(model):        # any LLaMA-like vision-language model of transformers
    model.generate(**inputs)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from eah import method
    from eah.context import image_tokens, prompt_length
    from eah.errors import (
        EAHConfigError,
        EAHError,
        EAHStateError,
        UnsupportedModelError,
        UnsupportedVersionError,
    )
    from eah.handle import EAHHandle, LayerReport, Observer
    from eah.observation import LayerObservation
    from eah.patch import disable, enable, enabled, is_enabled, observe
    from eah.settings import EAHConfig

__version__ = "0.2.0"

# Imported on first use: `python -m eah.swap` must run with any transformers, or without one.
_LAZY: Final = {
    "eah.context": ("image_tokens", "prompt_length"),
    "eah.errors": (
        "EAHConfigError",
        "EAHError",
        "EAHStateError",
        "UnsupportedModelError",
        "UnsupportedVersionError",
    ),
    "eah.handle": ("EAHHandle", "LayerReport", "Observer"),
    "eah.observation": ("LayerObservation",),
    "eah.patch": ("disable", "enable", "enabled", "is_enabled", "observe"),
    "eah.settings": ("EAHConfig",),
}

__all__ = [
    "EAHConfig",
    "EAHConfigError",
    "EAHError",
    "EAHHandle",
    "EAHStateError",
    "LayerObservation",
    "LayerReport",
    "Observer",
    "UnsupportedModelError",
    "UnsupportedVersionError",
    "disable",
    "enable",
    "enabled",
    "image_tokens",
    "is_enabled",
    "method",
    "observe",
    "prompt_length",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module."""
    if name == "method":
        return import_module("eah.method")
    for module, names in _LAZY.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'eah' has no attribute {name!r}")
