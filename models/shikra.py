"""Shikra-7B, from the merged folder (LLaMA-7B with Shikra's delta added) and CLIP.

LLaVA's predecessor in structure: CLIP at 224 pixels, one linear layer as projector, and a token
before and one after the image tokens. transformers has no class for it; its LLaVA with another
projector is all that is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import transformers
from packaging import version
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from models.generation import EncodedPrompts
from models.llava import Llava
from models.precision import FULL_AUTOCAST, HALF, Precision
from models.sources import Family


class ShikraConfig(LlavaConfig):  # type: ignore[misc]  # transformers is untyped
    """LLaVA's config under a name of its own, so that a saved folder says what it is."""

    model_type = "shikra"


class ShikraForConditionalGeneration(LlavaForConditionalGeneration):  # type: ignore[misc]
    """LLaVA with one linear layer as projector."""

    config_class = ShikraConfig

    def __init__(self, config: Any) -> None:
        """Build LLaVA and replace its projector."""
        super().__init__(config)
        self.model.multi_modal_projector = nn.Linear(
            config.vision_config.hidden_size, config.text_config.hidden_size
        )


if version.parse(transformers.__version__).major >= 5:
    # There a class that is not transformers' own must say that LLaVA's names on disk are its own.
    from transformers import conversion_mapping

    conversion_mapping.register_checkpoint_conversion_mapping(
        ShikraConfig.model_type, conversion_mapping.get_checkpoint_conversion_mapping("llava")
    )


class Shikra(Llava):
    """Shikra with the reference wrapper's prompt and preprocessing.

    Protocol "official" is Shikra's own: a space after the system message, and padding with white.
    """

    family = Family("shikra", "shikra", ("shikra",), extra_tokens=3)
    model_class: ClassVar[Any] = ShikraForConditionalGeneration
    config_class: ClassVar[Any] = ShikraConfig
    # The wrapper loads the language model in float32 and runs it under autocast.
    mixed = Precision("mixed", {"vision": HALF, "projector": FULL_AUTOCAST, "llm": FULL_AUTOCAST})
    stop_text = None
    answer_mark = "ASSISTANT:"
    padding = (255, 255, 255)

    def count_ids(self, questions: Sequence[str], prompts: EncodedPrompts) -> tuple[int, ...]:
        """Return the lengths of the prompts, each image token counted: they have ids in Shikra."""
        return tuple(prompts.attention_mask.sum(-1).tolist())
