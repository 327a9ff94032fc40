"""InstructBLIP and MiniGPT-4: EVA ViT-g, LayerNorm, Q-Former, projection, Vicuna-7B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers import (
    BertTokenizerFast,
    Blip2Config,
    Blip2ForConditionalGeneration,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    StoppingCriteriaList,
)

from models.base import VLM
from models.checkpoints.locate import llama_config
from models.decoding.stopping import StopAtText
from models.errors import ModelError
from models.generation import Decoding
from models.images import SquashPreprocessing
from models.library_errors import library_errors
from models.precision import EVA, FULL, FULL_AUTOCAST, HALF_AUTOCAST, Parts, Precision
from models.sources import QFORMER_TOKENIZER, WHOLE, Checkpoint, Family
from models.tokenizer import ChunkTokenizer, check_characters

# LAVIS's LayerNorm after the tower has torch's default; transformers uses the tower's 1e-6.
LN_VISION_EPS = 1e-5
MAX_LENGTH = 128  # of a question in the Q-Former, in tokens
STOP = "###"


class BlipVLM(VLM):
    """A model with a Q-Former between EVA ViT-g and Vicuna."""

    config_class: ClassVar[Any]  # transformers'
    vision_sizes: ClassVar[dict[str, int]] = {}  # where they differ from ViT-g's
    qformer_sizes: ClassVar[dict[str, int]] = {}  # where they differ from BERT-base's
    num_query_tokens: ClassVar[int] = 32  # image tokens
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
        """Return the config of a checkpoint's model.

        The original files do not name the sizes of tower and Q-Former: ViT-g and BERT-base,
        transformers' defaults.
        """
        if checkpoint.is_whole:
            return cls.config_class.from_dict(checkpoint.parts[WHOLE].config)
        qformer = cls.config_class().qformer_config.to_dict()
        width = cls.vision_sizes.get("hidden_size", qformer["encoder_hidden_size"])
        return cls.config_class(
            vision_config=dict(cls.vision_sizes),
            qformer_config={**qformer, "encoder_hidden_size": width, **cls.qformer_sizes},
            text_config=llama_config(checkpoint.parts["llm"]).to_dict(),
            num_query_tokens=cls.num_query_tokens,
        )

    @property
    def language_model(self) -> Any:
        """The `LlamaForCausalLM`, which receives embeddings only.

        transformers' own `generate` of these models also passes the prompt's ids, so a repetition
        penalty would apply to the prompt, including its EOS.
        """
        return self.model.language_model

    @property
    def num_image_tokens(self) -> int:
        """One per query of the Q-Former."""
        return int(self.model.config.num_query_tokens)

    @property
    def preprocessing(self) -> SquashPreprocessing:
        """The preprocessing: pictures are resized to a square."""
        return SquashPreprocessing(self.model.config.vision_config.image_size)

    @torch.inference_mode()
    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return all positions of the vision tower, CLS included, normalised, shape (B, F, C)."""
        tower = self.model.vision_model
        weight = tower.embeddings.patch_embedding.weight
        pixels = pixels.to(weight.device, weight.dtype, non_blocking=True)
        with self.precision.parts["vision"].context(weight.device):
            features: torch.Tensor = tower(pixels).last_hidden_state
        return features.to(tower.post_layernorm.weight.dtype)

    def _query(self, features: torch.Tensor, **question: torch.Tensor) -> torch.Tensor:
        """Return the Q-Former's output in the language model's width, (B, I, E).

        Args:
            features: What `encode_pixels` returned, shape (B, F, C).
            question: `input_ids` and `attention_mask` of the question, if the Q-Former gets it.
        """
        queries = self.model.query_tokens.expand(len(features), -1, -1)
        with self.precision.parts["qformer"].context(queries.device):
            states = self.model.qformer(
                query_embeds=queries,
                encoder_hidden_states=features.to(queries.device, queries.dtype),
                **question,
            ).last_hidden_state[:, : queries.shape[1]]
        project = self.model.language_projection
        with self.precision.parts["projector"].context(project.weight.device):
            embeds: torch.Tensor = project(states.to(project.weight.device, project.weight.dtype))
        return embeds


class InstructBlip(BlipVLM):
    """InstructBLIP, whose Q-Former gets the question: image tokens differ by question.

    They come first in the prompt, then `</s>` (which the reference sets as BOS), then the question.
    """

    family = Family("instructblip", "instructblip", ("llama",))
    model_class: ClassVar[Any] = InstructBlipForConditionalGeneration
    config_class: ClassVar[Any] = InstructBlipConfig
    # BERT's 30522 tokens and [DEC], which LAVIS added.
    qformer_sizes: ClassVar[dict[str, int]] = {"vocab_size": 30523}
    # The wrapper disables autocast for the Q-Former; its float32 output makes the prompt float32.
    mixed = Precision(
        "mixed", {"vision": EVA, "qformer": FULL, "projector": FULL, "llm": HALF_AUTOCAST}
    )
    repetition_penalty = 1.5
    image_depends_on_question = True

    def __init__(
        self,
        model: Any,
        tokenizer: ChunkTokenizer,
        *,
        protocol: str,
        instruction_tokenizer: Any,
        precision: Precision | None = None,
    ) -> None:
        """Wrap a loaded model; `instruction_tokenizer` is the Q-Former's, a `BertTokenizerFast`."""
        super().__init__(model, tokenizer, protocol=protocol, precision=precision)
        self.instruction_tokenizer = instruction_tokenizer
        last = max(instruction_tokenizer.get_vocab().values())
        if last >= (rows := self.model.config.qformer_config.vocab_size):
            raise ModelError(
                f"the Q-Former has {rows} embeddings, but its tokenizer has ids up to {last}; "
                "copy bert-base-uncased's vocab.txt into the checkpoint"
            )

    @classmethod
    def extra_kwargs(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """Return the Q-Former's tokenizer, lower-cased BERT's.

        Raises:
            ModelError: If the checkpoint has none.
        """
        whole, advice = checkpoint.parts[WHOLE], "copy bert-base-uncased's vocab.txt there"
        for name in ("vocab.txt", "tokenizer.json"):
            if (file := whole.file(f"{QFORMER_TOKENIZER}/{name}")) is not None:
                with library_errors(f"{file} is not a tokenizer for the Q-Former", advice):
                    tokenizer = BertTokenizerFast.from_pretrained(
                        file.parent, truncation_side="left"
                    )
                    tokenizer("is there?")  # fails without [UNK]
                return {"instruction_tokenizer": tokenizer}
        raise ModelError(
            f"checkpoint {checkpoint.name} has no tokenizer for the Q-Former "
            f"({QFORMER_TOKENIZER}/vocab.txt or {QFORMER_TOKENIZER}/tokenizer.json); copy "
            "bert-base-uncased's vocab.txt there"
        )

    def instruction_ids(self, questions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the Q-Former's ids, "[CLS] ... [SEP]", and their mask, both (B, T) int64."""
        for question in questions:  # the prompt, which is checked too, is made later
            check_characters(question)
        encoded = self.instruction_tokenizer(
            list(questions),
            padding=True,
            truncation=True,  # on the left
            max_length=MAX_LENGTH,
            split_special_tokens=True,  # "[SEP]" in a question is text
            return_tensors="pt",
        )
        return encoded["input_ids"], encoded["attention_mask"]

    @torch.inference_mode()
    def image_embeds(self, features: torch.Tensor, questions: Sequence[str]) -> torch.Tensor:
        """Return the Q-Former's output for pictures and questions, shape (B, I, E)."""
        device = self.model.query_tokens.device
        ids, mask = (part.to(device) for part in self.instruction_ids(questions))
        # Queries come before the question.
        seen = torch.cat([mask.new_ones(len(mask), self.num_image_tokens), mask], dim=1)
        return self._query(features, input_ids=ids, attention_mask=seen)


class MiniGPT4(BlipVLM):
    """MiniGPT-4 (Vicuna v0): `Blip2ForConditionalGeneration`, whose Q-Former gets no text."""

    family = Family("minigpt4", "blip-2", ("llama",))
    model_class: ClassVar[Any] = Blip2ForConditionalGeneration
    config_class: ClassVar[Any] = Blip2Config
    # The wrapper encodes pictures under autocast from the tower to the projection.
    mixed = Precision(
        "mixed",
        {
            "vision": EVA,
            "qformer": FULL_AUTOCAST,
            "projector": FULL_AUTOCAST,
            "llm": HALF_AUTOCAST,
        },
    )
    stop_text = STOP
    answer_mark = "Assistant:"

    @torch.inference_mode()
    def image_embeds(self, features: torch.Tensor, questions: Sequence[str]) -> torch.Tensor:
        """Return the Q-Former's output for pictures, shape (B, I, E)."""
        return self._query(features)

    def stopping(self, decoding: Decoding) -> StoppingCriteriaList:
        """Stop at "###", with which Vicuna v0 begins the next turn instead of ending with EOS.

        The reference wrapper continues and cuts afterwards, which is equivalent for one beam. With
        several beams, later tokens affect the ranking, so generation must continue here as well.
        """
        if decoding.num_beams > 1:
            return StoppingCriteriaList()
        return StoppingCriteriaList([StopAtText(STOP, self.tokenizer)])
