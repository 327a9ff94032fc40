"""PaliGemma, whose prompts are bidirectional."""

from __future__ import annotations

import torch

from tests.eah.families.case import (
    IMAGE,
    Family,
    Media,
    Tensors,
    placeholders,
    tiny,
)
from tests.eah.families.settings import (
    INDEX,
    SIGLIP,
    SQUARE,
)


def _prompt_types(ids: torch.Tensor, mask: torch.Tensor) -> Tensors:
    """Return PaliGemma's types: all of it is the prompt (0), nothing is an answer (1)."""
    return {"token_type_ids": torch.zeros_like(ids)}


FAMILIES = (
    Family(
        "paligemma",
        tiny(
            "paligemma",
            text={"model_type": "gemma"},
            vision=SIGLIP,
            projection_dim=32,
            hidden_size=32,
            vocab_size=100,
            **INDEX,
        ),
        Media(placeholders(16), SQUARE),
        source="image_token_index",
        note="bidirectional with the sdpa kernel, causal with eager",
        sdpa_as="paligemma with types",
    ),
    Family(
        "paligemma with types",
        tiny(
            "paligemma",
            text={"model_type": "gemma"},
            vision=SIGLIP,
            projection_dim=32,
            hidden_size=32,
            vocab_size=100,
            image_token_index=IMAGE,
        ),
        Media(placeholders(16), SQUARE),
        more=_prompt_types,
        source="image_token_index",
        note="bidirectional over the prompt",
    ),
)
