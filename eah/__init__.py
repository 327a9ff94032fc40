"""EAH: one attention head's map for all heads of a shallow layer, against object hallucination.

import eah

with eah.enabled(model):        # any LLaMA-like vision-language model of transformers
    model.generate(**inputs)
"""

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
