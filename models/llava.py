"""LLaVA-1.5 from Hugging Face-format checkpoints (`llava-hf/llava-1.5-7b-hf`, 13b, tiny-llava).

Protocol "opera" runs it as the paper's wrapper does: system message glued to "USER:", the picture's
sides cropped away. Protocol "llava" is LLaVA's own: `vicuna_v1` prompt, padded to a square.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import LlavaForConditionalGeneration

from models.base import VLM
from models.checkpoints import Checkpoint
from models.devices import AUTO
from models.errors import ModelError
from models.images import CLIP_MEAN, clip_pixels, pad_to_square


class Llava(VLM):
    """`LlavaForConditionalGeneration` with the reference wrappers' prompt and preprocessing."""

    family = "llava-1.5"
    model_type = "llava"
    stop_text = "###"

    @classmethod
    def load_model(cls, checkpoint: Checkpoint, *, device: str, dtype: torch.dtype) -> Any:
        """Load `LlavaForConditionalGeneration`.

        Raises:
            ModelError: If a weight is missing or of another shape, or the features are not
                LLaVA-1.5's.
        """
        try:
            model, info = LlavaForConditionalGeneration.from_pretrained(
                checkpoint.source,
                dtype=dtype,
                device_map="auto" if device == AUTO else None,
                output_loading_info=True,
            )
        except (OSError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"checkpoint {checkpoint.source} can't be loaded "
                f"({' '.join(str(error).split())[:300]}); download it again"
            ) from error
        absent = sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])
        if absent:
            raise ModelError(
                f"checkpoint {checkpoint.source} lacks {len(absent)} weights of LLaVA-1.5, "
                f"{absent[0]} among them; download it again"
            )
        config = model.config
        if (config.vision_feature_select_strategy, type(config.vision_feature_layer)) != (
            "default",
            int,
        ):
            raise ModelError(
                f"checkpoint {checkpoint.source} takes image features from "
                f"{config.vision_feature_layer} ({config.vision_feature_select_strategy!r}); "
                "LLaVA-1.5 takes them from one layer, 'default'"
            )
        return model if device == AUTO else model.to(device)

    def preprocess(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return pixels as the protocol wants them, shape (B, 3, side, side), float32."""
        rgb = [image.convert("RGB") for image in images]
        if self.protocol == "llava":
            color = tuple(int(mean * 255) for mean in CLIP_MEAN)
            rgb = [pad_to_square(image, (color[0], color[1], color[2])) for image in rgb]
        return clip_pixels(rgb, size=self.model.config.vision_config.image_size)

    @torch.inference_mode()
    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return projected CLIP patches of the second-to-last layer without CLS, (B, I, E)."""
        model = self.model.model
        config = self.model.config
        tower = next(model.vision_tower.parameters())
        states = model.vision_tower(
            pixels.to(tower.device, tower.dtype), output_hidden_states=True
        ).hidden_states
        patches = states[config.vision_feature_layer][:, 1:]  # (B, 1 + I, C) -> (B, I, C)
        projector = model.multi_modal_projector
        features: torch.Tensor = projector(patches.to(next(projector.parameters()).device))
        return features
