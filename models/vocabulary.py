"""Check that language model and tokenizer belong together, by the number of embedding rows."""

from __future__ import annotations

import logging

from models.checkpoints import ORIGINS, Checkpoint
from models.errors import ModelError
from models.tokenizer import ChunkTokenizer

logger = logging.getLogger(__name__)


def check_vocabulary(checkpoint: Checkpoint, rows: int, tokenizer: ChunkTokenizer) -> None:
    """Refuse a language model that was swapped for another one.

    Vicuna v0 has one row more than its tokenizer has pieces, for a padding token; Vicuna v1.1 and
    LLaVA-1.5 have as many; Shikra has three more.

    Args:
        checkpoint: Where the language model is from.
        rows: Number of its embeddings.
        tokenizer: Its tokenizer.
    Raises:
        ModelError: If the tokenizer has pieces without embeddings, or the model is another one.
    """
    pieces, family = tokenizer.get_piece_size(), checkpoint.family.name
    where = f"llm ({checkpoint.text.name}) has {rows} embeddings for {pieces} pieces"
    if rows < pieces:
        raise ModelError(
            f"{where}; model and tokenizer are not of the same checkpoint: copy the right "
            "tokenizer.model into it"
        )
    if family == "shikra" and rows < pieces + 3:
        raise ModelError(
            f"{where}, but Shikra has 3 more than pieces, for its image tokens: "
            f"pass {ORIGINS['shikra', 'llm']}"
        )
    if checkpoint.is_whole:
        return
    if family == "instructblip" and rows != pieces:
        raise ModelError(
            f"{where}, as Vicuna v0 does; InstructBLIP was trained with v1.1, which has as many: "
            f"pass {ORIGINS[family, 'llm']}"
        )
    if family == "minigpt4" and rows != pieces + 1:
        logger.warning(
            "%s; Vicuna v0, which MiniGPT-4 was trained with, has one more: if this is v1.1, the "
            "answers will be poor, and %s is needed",
            where,
            ORIGINS[family, "llm"],
        )
