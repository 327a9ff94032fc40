"""InstructBLIP-Vicuna-7B, from Hugging Face-format folders or LAVIS's files.

The Q-Former reads the question too, so that image tokens differ from question to question. They
come first in the prompt, then `</s>` (which the reference sets as BOS), then the bare question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers import (
    BertTokenizerFast,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
)

from models.blip import BlipVLM
from models.errors import ModelError
from models.precision import EVA, FULL, HALF_AUTOCAST, Precision
from models.sources import QFORMER_TOKENIZER, WHOLE, Checkpoint, Family
from models.tokenizer import ChunkTokenizer

MAX_LENGTH = 128


class InstructBlip(BlipVLM):
    """`InstructBlipForConditionalGeneration` with the reference wrapper's prompt and decoding."""

    family = Family("instructblip", "instructblip", ("llama",))
    model_class: ClassVar[Any] = InstructBlipForConditionalGeneration
    config_class: ClassVar[Any] = InstructBlipConfig
    # BERT's 30522 pieces and [DEC], which LAVIS added.
    qformer_sizes: ClassVar[dict[str, int]] = {"vocab_size": 30523}
    # The wrapper leaves autocast for the Q-Former; its float32 output makes the prompt float32.
    mixed = Precision(
        "mixed", {"vision": EVA, "qformer": FULL, "projector": FULL, "llm": HALF_AUTOCAST}
    )
    repetition_penalty = 1.5
    image_reads_question = True

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

    @classmethod
    def extras(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """Return the Q-Former's tokenizer, lower-cased BERT's.

        Raises:
            ModelError: If the checkpoint has none.
        """
        whole = checkpoint.parts[WHOLE]
        for name in ("vocab.txt", "tokenizer.json"):
            if (file := whole.file(f"{QFORMER_TOKENIZER}/{name}")) is not None:
                tokenizer = BertTokenizerFast.from_pretrained(file.parent, truncation_side="left")
                return {"instruction_tokenizer": tokenizer}
        raise ModelError(
            f"checkpoint {checkpoint.name} has no tokenizer for the Q-Former "
            f"({QFORMER_TOKENIZER}/vocab.txt or {QFORMER_TOKENIZER}/tokenizer.json); copy "
            "bert-base-uncased's vocab.txt there"
        )

    def instruction_ids(self, questions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the Q-Former reads, "[CLS] ... [SEP]", and its mask, both (B, T) int64."""
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
        """Return what the Q-Former takes from pictures for their questions, shape (B, I, E).

        Args:
            features: What `encode_pixels` returned, one picture per question, shape (B, F, C).
            questions: One per picture; the Q-Former reads them as they stand, lower-cased.
        """
        queries = self.model.query_tokens.expand(len(questions), -1, -1)
        ids, mask = (part.to(queries.device) for part in self.instruction_ids(questions))
        seen = torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1)
        with self.precision.parts["qformer"].context(queries.device):
            states = self.model.qformer(
                input_ids=ids,
                attention_mask=seen,
                query_embeds=queries,
                encoder_hidden_states=features.to(queries.device, queries.dtype),
            ).last_hidden_state
        return self._projected(states)
