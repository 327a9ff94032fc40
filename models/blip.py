"""What InstructBLIP and MiniGPT-4 share: EVA ViT-g, LayerNorm, Q-Former, projection, Vicuna."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from models.base import VLM
from models.checkpoints.locate import llama_config
from models.images import SquashPreprocessing
from models.precision import Parts, Precision
from models.sources import WHOLE, Checkpoint
from models.tokenizer import ChunkTokenizer

# torch's default, which LAVIS's LayerNorm after the tower has; transformers takes the tower's 1e-6.
LN_VISION_EPS = 1e-5


class BlipVLM(VLM):
    """A model with a Q-Former between EVA ViT-g and Vicuna.

    Attributes:
        config_class: transformers' config.
        vision_sizes: Of the vision tower, where they differ from ViT-g's.
        qformer_sizes: Of the Q-Former, where they differ from BERT-base's.
        num_query_tokens: Image tokens.
    """

    config_class: ClassVar[Any]
    vision_sizes: ClassVar[dict[str, int]] = {}
    qformer_sizes: ClassVar[dict[str, int]] = {}
    num_query_tokens: ClassVar[int] = 32
    parts = Parts(
        {
            "vision_model.": "vision",
            "qformer.": "qformer",
            "query_tokens": "qformer",
            "language_projection.": "projector",
            "language_model.": "llm",
        }
    )

    def __init__(
        self,
        model: Any,
        tokenizer: ChunkTokenizer,
        *,
        protocol: str,
        precision: Precision | None = None,
    ) -> None:
        """Wrap a loaded model, with the LayerNorm after the tower as it was trained."""
        super().__init__(model, tokenizer, protocol=protocol, precision=precision)
        self.model.vision_model.post_layernorm.eps = LN_VISION_EPS

    @classmethod
    def config(cls, checkpoint: Checkpoint) -> Any:
        """Return the config of the model that a checkpoint holds.

        The original files do not say how large tower and Q-Former are: they have the sizes of
        ViT-g and BERT-base, transformers' defaults.
        """
        if checkpoint.is_whole:
            return cls.config_class.from_dict(checkpoint.parts[WHOLE].config)
        return cls.original_config(llama_config(checkpoint.parts["llm"]))

    @classmethod
    def original_config(cls, text_config: Any) -> Any:
        """Return the config of the original files with some language model."""
        qformer = cls.config_class().qformer_config.to_dict()
        width = cls.vision_sizes.get("hidden_size", qformer["encoder_hidden_size"])
        return cls.config_class(
            vision_config=dict(cls.vision_sizes),
            qformer_config={**qformer, "encoder_hidden_size": width, **cls.qformer_sizes},
            text_config=text_config.to_dict(),
            num_query_tokens=cls.num_query_tokens,
        )

    @property
    def language_model(self) -> Any:
        """The `LlamaForCausalLM`, which is given embeddings alone.

        transformers' own `generate` of these models also passes the prompt's ids, so that a
        repetition penalty would hit the prompt, and EOS with it.
        """
        return self.model.language_model

    @property
    def num_image_tokens(self) -> int:
        """One for each query of the Q-Former."""
        return int(self.model.config.num_query_tokens)

    @property
    def preprocessing(self) -> SquashPreprocessing:
        """What makes pixels of pictures: squashed to a square."""
        return SquashPreprocessing(self.model.config.vision_config.image_size)

    @torch.inference_mode()
    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return all positions of the vision tower, CLS included, normalised, shape (B, F, C)."""
        tower = self.model.vision_model
        weight = tower.embeddings.patch_embedding.weight
        with self.precision.parts["vision"].context(weight.device):
            states = tower(
                pixels.to(weight.device, weight.dtype, non_blocking=True)
            ).last_hidden_state
        features: torch.Tensor = states.to(self._norm_dtype)
        return features

    @property
    def _norm_dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.vision_model.post_layernorm.weight.dtype
        return dtype

    def _projected(self, states: torch.Tensor) -> torch.Tensor:
        """Return the query tokens' output in the language model's width, (B, I, E)."""
        projection = self.model.language_projection
        queries = states[:, : self.model.config.num_query_tokens]
        with self.precision.parts["projector"].context(projection.weight.device):
            embeds: torch.Tensor = projection(
                queries.to(projection.weight.device, projection.weight.dtype)
            )
        return embeds
