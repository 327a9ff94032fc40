"""LLaVA-1.5 (7b, 13b, tiny) and Shikra-7B: CLIP, a projector, LLaMA.

Protocol "opera" runs LLaVA-1.5 as the paper's wrapper does: no space between system message and
"USER:", and a centre crop of the picture. Protocol "official" is LLaVA's: `vicuna_v1` prompt, and
the picture padded to a square. Shikra's "official" has a space after the system message and pads
with white.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import transformers
from packaging.version import Version
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from models.base import VLM
from models.checkpoints.locate import clip_config, llama_config
from models.errors import ModelError
from models.generation import EncodedPrompts
from models.images import ClipPreprocessing, Color
from models.precision import FULL_AUTOCAST, HALF, PART_NAMES, Parts, Precision
from models.sources import WHOLE, Checkpoint, Family


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
    # float16 throughout: the wrapper's autocast has nothing to cast.
    mixed = Precision("float16", dict.fromkeys(PART_NAMES, HALF))
    stop_text: ClassVar[str | None] = "###"
    padding: ClassVar[Color] = (122, 116, 104)  # CLIP's mean

    @classmethod
    def config(cls, checkpoint: Checkpoint) -> Any:
        """Return the config of a checkpoint's model.

        Raises:
            ModelError: If it takes image features in another way than LLaVA-1.5.
        """
        if checkpoint.is_whole:
            config = cls.config_class.from_dict(checkpoint.parts[WHOLE].config)
        else:
            llm = checkpoint.parts["llm"]
            config = cls.config_class(
                vision_config=clip_config(checkpoint.parts["vision"]).to_dict(),
                text_config=llama_config(llm).to_dict(),
                vision_feature_layer=llm.config.get("mm_vision_select_layer", -2),
                tie_word_embeddings=False,
            )
        layer, strategy = config.vision_feature_layer, config.vision_feature_select_strategy
        if strategy != "default" or not isinstance(layer, int):
            raise ModelError(
                f"checkpoint {checkpoint.name} takes image features from layer {layer!r} with "
                f"strategy {strategy!r}; {cls.__name__} takes them from one layer with 'default': "
                "name another checkpoint"
            )
        return config

    @property
    def num_image_tokens(self) -> int:
        """One for each patch of the picture."""
        vision = self.model.config.vision_config
        return int((vision.image_size // vision.patch_size) ** 2)

    @property
    def preprocessing(self) -> ClipPreprocessing:
        """Makes pixels of pictures: cropped, or padded to a square under "official"."""
        size = self.model.config.vision_config.image_size
        return ClipPreprocessing(size, self.padding if self.protocol == "official" else None)

    @torch.inference_mode()
    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return projected CLIP patches of the second-to-last layer without CLS, (B, I, E)."""
        model, layer = self.model.model, self.model.config.vision_feature_layer
        tower = next(model.vision_tower.parameters())
        pixels = pixels.to(tower.device, tower.dtype, non_blocking=True)
        with self.precision.parts["vision"].context(tower.device):
            states = model.vision_tower(pixels, output_hidden_states=True).hidden_states
        patches = states[layer][:, 1:]  # (B, 1 + I, C) -> (B, I, C)
        weight = next(model.multi_modal_projector.parameters())
        with self.precision.parts["projector"].context(weight.device):
            features: torch.Tensor = model.multi_modal_projector(
                patches.to(weight.device, weight.dtype)
            )
        return features

    def count_ids(self, questions: Sequence[str], prompts: EncodedPrompts) -> tuple[int, ...]:
        """Return the lengths of the prompts, the image counted as one id."""
        return tuple(len(self.prompt_ids(question)) for question in questions)


class ShikraConfig(LlavaConfig):  # type: ignore[misc]  # transformers is untyped
    """LLaVA's config with Shikra's model_type, so that a saved folder is recognised."""

    model_type = "shikra"


class ShikraForConditionalGeneration(LlavaForConditionalGeneration):  # type: ignore[misc]
    """LLaVA with one linear layer as projector; transformers has no class for Shikra."""

    config_class = ShikraConfig

    def __init__(self, config: Any) -> None:
        """Build LLaVA and replace its projector."""
        super().__init__(config)
        self.model.multi_modal_projector = nn.Linear(
            config.vision_config.hidden_size, config.text_config.hidden_size
        )


if Version(transformers.__version__).major >= 5:
    # Custom classes must register that their weights have LLaVA's names on disk.
    from transformers import conversion_mapping

    conversion_mapping.register_checkpoint_conversion_mapping(
        ShikraConfig.model_type, conversion_mapping.get_checkpoint_conversion_mapping("llava")
    )


class Shikra(Llava):
    """Shikra: CLIP at 224 pixels, a linear projector, a token on each side of the image tokens.

    Its checkpoint is the merged folder, LLaMA-7B with Shikra's delta added.
    """

    family = Family("shikra", "shikra", ("shikra",), ("<im_patch>", "<im_start>", "<im_end>"))
    model_class: ClassVar[Any] = ShikraForConditionalGeneration
    config_class: ClassVar[Any] = ShikraConfig
    # The reference wrapper loads the language model in float32 and runs it under autocast.
    mixed = Precision("mixed", {"vision": HALF, "projector": FULL_AUTOCAST, "llm": FULL_AUTOCAST})
    stop_text = None
    answer_mark = "ASSISTANT:"
    padding = (255, 255, 255)

    def count_ids(self, questions: Sequence[str], prompts: EncodedPrompts) -> tuple[int, ...]:
        """Return the lengths of the prompts with all image tokens, which have ids in Shikra."""
        return tuple(prompts.attention_mask.sum(-1).tolist())
