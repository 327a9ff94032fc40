"""Small tokenizers, trained here on the scenes' questions and captions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from scripts.scenes.make import scene_of
from scripts.scenes.scene import CATEGORIES
from scripts.scenes.text import QUESTION_DESCRIBE, answer, captions, describe, question

SCENES = 40
WORDS = ("yes", "no", "Yes", "No", " yes", " no", " Yes", " No")
ROLES = (
    "system user assistant model\nUSER: ASSISTANT: User: Assistant: You are a helpful assistant."
)


def byte_level(special: Sequence[str], *, size: int = 500) -> Tokenizer:
    """Return a byte-level BPE tokenizer, as Qwen's; special tokens have the last ids."""
    tokenizer = Tokenizer.from_str(_byte_level(size))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return tokenizer


def metaspace(special: Sequence[str], *, size: int = 700, bos: str | None = None) -> Tokenizer:
    """Return a BPE tokenizer with bytes as its last resort, as Llama's and Gemma's.

    Args:
        special: Special tokens; the first ones up to "<unk>" have the first ids, as there.
        size: Number of tokens, without the other special ones.
        bos: Token that `encode` puts in front.
    """
    first = special[: special.index("<unk>") + 1]
    tokenizer = Tokenizer.from_str(_metaspace(size, tuple(first)))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )
    return tokenizer


def word_piece(special: Sequence[str]) -> Tokenizer:
    """Return a WordPiece tokenizer, as BERT's: words in lower case between [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=list(special), show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    first, last = ((token, int(tokenizer.token_to_id(token))) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.BertProcessing(last, first)
    return tokenizer


@cache
def _byte_level(size: int) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return str(tokenizer.to_str())


@cache
def _metaspace(size: int, first: tuple[str, ...]) -> str:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[*first, *bytes_], show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return str(tokenizer.to_str())


def _texts() -> Iterator[str]:
    """Return the text to learn from: what is asked and answered about scenes."""
    for start in ("", "\n", "(", ".", "*", ":"):
        yield from [f"{start}{word}" for word in WORDS] * 200
    yield from [ROLES, QUESTION_DESCRIBE] * 20
    for category in CATEGORIES:
        yield question(category.name)
        yield answer(category.name, present=True)
        yield answer(category.name, present=False)
    for index in range(SCENES):
        scene, _ = scene_of(3, index)
        yield describe(scene)
        yield from captions(scene, random.Random(index))
