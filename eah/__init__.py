"""EAH: one attention head's map for all heads of a shallow layer, against object hallucination.

import eah

with eah.enabled(model):        # any LLaMA-like vision-language model of transformers
    model.generate(**inputs)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from eah.config import EAHConfig
    from eah.errors import (
        EAHConfigError,
        EAHError,
        EAHStateError,
        UnsupportedModelError,
        UnsupportedVersionError,
    )
    from eah.patch import (
        EAHHandle,
        LayerReport,
        disable,
        enable,
        enabled,
        image_tokens,
        is_enabled,
    )

__version__ = "0.1.0"

__all__ = [
    "EAHConfig",
    "EAHConfigError",
    "EAHError",
    "EAHHandle",
    "EAHStateError",
    "LayerReport",
    "UnsupportedModelError",
    "UnsupportedVersionError",
    "disable",
    "enable",
    "enabled",
    "image_tokens",
    "is_enabled",
]

# Looked up when first used: `python -m eah.swap` has to run beside any transformers, or none.
_HOMES: Final = {
    "EAHConfig": "eah.config",
    "EAHConfigError": "eah.errors",
    "EAHError": "eah.errors",
    "EAHHandle": "eah.patch",
    "EAHStateError": "eah.errors",
    "LayerReport": "eah.patch",
    "UnsupportedModelError": "eah.errors",
    "UnsupportedVersionError": "eah.errors",
    "disable": "eah.patch",
    "enable": "eah.patch",
    "enabled": "eah.patch",
    "image_tokens": "eah.patch",
    "is_enabled": "eah.patch",
}


def __getattr__(name: str) -> Any:
    """Import a public name's module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'eah' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
