"""Encode prompt chunks to the ids that the reference wrappers produced.

The tokenizers of transformers changed between 4.29 (the papers') and today: a chunk that starts
with a space loses its lone "▁". Encoding the chunks with sentencepiece itself gives the papers'
ids on every version. A folder that holds `tokenizer.json` only (written by transformers 5) is read
with the `tokenizers` library set up as sentencepiece splits text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import sentencepiece
from tokenizers import Tokenizer, normalizers
from tokenizers.processors import TemplateProcessing

from models.errors import ModelError

LLAMA_BOS, LLAMA_EOS, LLAMA_PAD = 1, 2, 0


class ChunkTokenizer(Protocol):
    """The part of `sentencepiece.SentencePieceProcessor` that prompts need."""

    def encode(self, text: str, /) -> list[int]:
        """Return the ids of a chunk of text, without BOS or EOS."""

    def decode(self, ids: Sequence[int], /) -> str:
        """Return the text of ids; control tokens are left out."""

    def bos_id(self) -> int:
        """Return the id of the beginning-of-sequence token."""

    def eos_id(self) -> int:
        """Return the id of the end-of-sequence token."""

    def get_piece_size(self) -> int:
        """Return the size of the trained vocabulary, without tokens that were added to it."""


class SentencePieceTokenizer:
    """A `tokenizer.model` file."""

    def __init__(self, path: Path) -> None:
        """Load the file.

        Raises:
            ModelError: If it is not a sentencepiece model.
        """
        try:
            self._pieces: Any = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except RuntimeError as error:
            raise ModelError(
                f"{path} is not a sentencepiece model ({' '.join(str(error).split())}); copy "
                "tokenizer.model from the original checkpoint again"
            ) from error

    def encode(self, text: str, /) -> list[int]:
        """Return the ids of a chunk of text, without BOS or EOS."""
        return list(self._pieces.encode(text))

    def decode(self, ids: Sequence[int], /) -> str:
        """Return the text of ids; control tokens, <unk> and ids added after training are left out.

        <unk> is a special token in LLaMA's tokenizers, and pads what generation stopped early.
        """
        size, unknown = self._pieces.get_piece_size(), self._pieces.unk_id()
        return str(self._pieces.decode([i for i in ids if i < size and i != unknown]))

    def bos_id(self) -> int:
        """Return the id of the beginning-of-sequence token."""
        return int(self._pieces.bos_id())

    def eos_id(self) -> int:
        """Return the id of the end-of-sequence token."""
        return int(self._pieces.eos_id())

    def get_piece_size(self) -> int:
        """Return the size of the trained vocabulary, without tokens that were added to it."""
        return int(self._pieces.get_piece_size())


class JsonTokenizer:
    """A `tokenizer.json` file of a LLaMA tokenizer, split the way sentencepiece splits."""

    def __init__(self, path: Path) -> None:
        """Load the file.

        Raises:
            ModelError: If it is not the BPE tokenizer of a LLaMA model.
        """
        try:
            content = json.loads(path.read_bytes())
            # Pieces of nothing but spaces come last in sentencepiece, whose scores say so; the
            # files that transformers 5 writes have them first, by id.
            content["model"]["merges"].sort(key=lambda merge: not set("".join(merge)) - set("▁ "))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{path} is not a LLaMA tokenizer ({error!r}); copy tokenizer.json from the "
                "original checkpoint again"
            ) from error
        self._tokenizer: Any = Tokenizer.from_str(json.dumps(content))
        prefix_and_spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        self._tokenizer.normalizer = normalizers.Sequence(prefix_and_spaces)
        self._tokenizer.pre_tokenizer = None
        self._tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])

    def encode(self, text: str, /) -> list[int]:
        """Return the ids of a chunk of text, without BOS or EOS."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids) if text else []

    def decode(self, ids: Sequence[int], /) -> str:
        """Return the text of ids; special tokens are left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def bos_id(self) -> int:
        """Return the id of the beginning-of-sequence token."""
        return LLAMA_BOS

    def eos_id(self) -> int:
        """Return the id of the end-of-sequence token."""
        return LLAMA_EOS

    def get_piece_size(self) -> int:
        """Return the size of the trained vocabulary, without tokens that were added to it."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=False))
