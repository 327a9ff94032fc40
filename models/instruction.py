"""The tokenizer of InstructBLIP's Q-Former: BERT's, lower-cased."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from models.checkpoints import Checkpoint
from models.errors import ModelError
from models.layouts import WHOLE
from models.sources import QFORMER_TOKENIZER

MAX_LENGTH: Final = 128
FOLDER: Final = QFORMER_TOKENIZER


class InstructionTokenizer:
    """Encodes questions as "[CLS] ... [SEP]", the start cut off where they are too long."""

    def __init__(self, tokenizer: Any) -> None:
        """Set truncation and padding."""
        self._tokenizer = tokenizer
        self._tokenizer.enable_truncation(MAX_LENGTH, direction="left")
        self._tokenizer.enable_padding(direction="right", pad_id=0, pad_token="[PAD]")

    def __call__(self, questions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask, both of shape (B, T) int64; 1 where there is a token."""
        encoded = self._tokenizer.encode_batch(list(questions))
        return (
            torch.tensor([item.ids for item in encoded]),
            torch.tensor([item.attention_mask for item in encoded]),
        )


def load_instruction_tokenizer(checkpoint: Checkpoint) -> InstructionTokenizer:
    """Load the Q-Former's tokenizer of a checkpoint.

    Raises:
        ModelError: If it has none.
    """
    vocabulary, fast = _files(checkpoint)
    if vocabulary is not None:
        return InstructionTokenizer(_bert(vocabulary))
    if fast is not None:
        return InstructionTokenizer(Tokenizer.from_file(str(fast)))
    raise ModelError(
        f"checkpoint {checkpoint.name} has no tokenizer for the Q-Former "
        f"({FOLDER}/vocab.txt or {FOLDER}/tokenizer.json); copy bert-base-uncased's vocab.txt there"
    )


def _bert(vocabulary: Path) -> Any:
    """Return BERT's lower-cased tokenizer from its `vocab.txt`."""
    tokenizer = Tokenizer(WordPiece.from_file(str(vocabulary), unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    return tokenizer


def _files(checkpoint: Checkpoint) -> tuple[Path | None, Path | None]:
    if checkpoint.is_whole:
        whole = checkpoint.parts[WHOLE]
        return whole.file(f"{FOLDER}/vocab.txt"), whole.file(f"{FOLDER}/tokenizer.json")
    source = checkpoint.parts["qformer_tokenizer"]
    if source.path is not None and source.path.is_file():
        return source.path, None
    return source.file("vocab.txt"), source.file("tokenizer.json")
