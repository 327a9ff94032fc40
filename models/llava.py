"""LLaVA-1.5, from `llava-hf/llava-1.5-7b-hf`, from `liuhaotian/llava-v1.5-7b` and CLIP, 13b, tiny.

Protocol "opera" runs it as the paper's wrapper does: system message glued to "USER:", the picture's
sides cropped away. Protocol "official" is LLaVA's: `vicuna_v1` prompt, padded to a square.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from models.base import VLM
from models.checkpoints.locate import clip_config, llama_config
from models.errors import ModelError
from models.generation import EncodedPrompts
from models.images import CLIP_MEAN, ClipPreprocessing, Color
from models.precision import HALF, PART_NAMES, Parts, Precision
from models.sources import WHOLE, Checkpoint, Family

SECOND_TO_LAST = -2


class Llava(VLM):
    """`LlavaForConditionalGeneration` with the reference wrappers' prompt and preprocessing."""

    family = Family("llava-1.5", "llava", ("llava", "llava_llama"))
    model_class: ClassVar[Any] = LlavaForConditionalGeneration
    config_class: ClassVar[Any] = LlavaConfig
    parts = Parts(
        {
            "model.vision_tower.": "vision",
            "model.multi_modal_projector.": "projector",
            "model.language_model.": "llm",
            "lm_head.": "llm",
        }
    )
    # float16 throughout: autocast, which the wrapper also has, finds nothing to cast.
    mixed = Precision("float16", dict.fromkeys(PART_NAMES, HALF))
    stop_text: ClassVar[str | None] = "###"
    # LLaVA's own padding color: CLIP's mean.
    padding: ClassVar[Color] = tuple(int(mean * 255) for mean in CLIP_MEAN)  # type: ignore[assignment]  # three

    @classmethod
    def config(cls, checkpoint: Checkpoint) -> Any:
        """Return the config of the model that a checkpoint holds.

        Raises:
            ModelError: If its image features are not LLaVA-1.5's.
        """
        if not checkpoint.is_whole:
            llm = checkpoint.parts["llm"]
            layer = llm.config.get("mm_vision_select_layer", SECOND_TO_LAST)
            config = cls.config_class(
                vision_config=clip_config(checkpoint.parts["vision"]).to_dict(),
                text_config=llama_config(llm).to_dict(),
                vision_feature_layer=layer,
                tie_word_embeddings=False,
            )
        else:
            config = cls.config_class.from_dict(checkpoint.parts[WHOLE].config)
        if (config.vision_feature_select_strategy, type(config.vision_feature_layer)) != (
            "default",
            int,
        ):
            raise ModelError(
                f"checkpoint {checkpoint.name} takes image features from "
                f"{config.vision_feature_layer} ({config.vision_feature_select_strategy!r}); "
                f"{cls.__name__} takes them from one layer, 'default'"
            )
        return config

    @property
    def num_image_tokens(self) -> int:
        """One for each patch of the picture."""
        vision = self.model.config.vision_config
        return int((vision.image_size // vision.patch_size) ** 2)

    @property
    def preprocessing(self) -> ClipPreprocessing:
        """What makes pixels of pictures: cropped, or padded to a square under "official"."""
        size = self.model.config.vision_config.image_size
        return ClipPreprocessing(size, self.padding if self.protocol == "official" else None)

    @torch.inference_mode()
    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return projected CLIP patches of the second-to-last layer without CLS, (B, I, E)."""
        model = self.model.model
        config = self.model.config
        tower = next(model.vision_tower.parameters())
        with self.precision.parts["vision"].context(tower.device):
            states = model.vision_tower(
                pixels.to(tower.device, tower.dtype, non_blocking=True), output_hidden_states=True
            ).hidden_states
        patches = states[config.vision_feature_layer][:, 1:]  # (B, 1 + I, C) -> (B, I, C)
        projector = model.multi_modal_projector
        weight = next(projector.parameters())
        with self.precision.parts["projector"].context(weight.device):
            features: torch.Tensor = projector(patches.to(weight.device, weight.dtype))
        return features

    def count_ids(self, questions: Sequence[str], prompts: EncodedPrompts) -> tuple[int, ...]:
        """Return the lengths of the prompts, the image counted as one id."""
        return tuple(len(self.prompt_ids(question)) for question in questions)
