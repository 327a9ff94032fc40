"""Write `tokenizer.json`, so that transformers gives the ids of a `tokenizer.model`.

transformers can convert a lone `tokenizer.model` itself, but needs protobuf, and drops the dummy
prefix of text after a special token, which silently changes ids. Here sentencepiece provides tokens
and scores, so protobuf is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import copysign
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE

from models.errors import ModelError
from models.tokenizer import BYTES, SPACE, SentencePieceTokenizer

Merge = tuple[str, str]
# In transformers 5, classes named after LLaMA ignore how the file splits text and use their own
# rules. This class uses the file unchanged, in all versions since 4.
TOKENIZER_CLASS: Final = "PreTrainedTokenizerFast"
# Texts that LLaMA's tokenizer splits unlike others: normalisation, spaces, unknown characters.
PROBES: Final = (
    " ", "  a  b   c ", "\ta\n\nb\r\n", "ﬁ ① Å é e\u0301 \u00a0x\u200b", "猫がいる 고양이 кот",
    "🐈\u200d⬛🇩🇪", "x" + " " * 40 + "y", "▁a▁▁b", "<s> </s> <unk> <0x41>", "1234567 aAaAaA",
)  # fmt: skip


def write_tokenizer_json(
    tokenizer_model: Path, folder: Path, *, added: Sequence[str] = (), processor: str | None = None
) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` for transformers 4.37 to 5.x.

    A prompt is encoded as in `models.prompts`: BOS first, and each text between special tokens
    separately, with its own dummy prefix and with the spaces at its ends.

    Args:
        tokenizer_model: A sentencepiece BPE model of LLaMA's kind.
        folder: Folder to write to.
        added: Special tokens after the trained vocabulary, by id: ("<image>", "<pad>") are 32000
            and 32001 of LLaVA-1.5. "<pad>" pads if it is among them, else "<unk>".
        processor: Class of the folder's processor, such as "LlavaProcessor".
    Raises:
        ModelError: If the model is of another kind, so that its ids can't be reproduced.
    """
    pieces = SentencePieceTokenizer(tokenizer_model)
    ids = range(pieces.get_piece_size())
    special = (pieces.unk_id(), pieces.bos_id(), pieces.eos_id())
    if min(special) < 0 or sum(map(pieces.is_byte, ids)) != len(BYTES):
        raise _not_llama_error(tokenizer_model, "it lacks tokens for <unk>, BOS, EOS or bytes")
    unk, bos, eos = map(pieces.id_to_piece, special)
    content = json.dumps(_content(pieces, (unk, bos, eos), added), ensure_ascii=False, indent=0)
    _check(tokenizer_model, pieces, content)
    config = {
        "tokenizer_class": TOKENIZER_CLASS,
        "bos_token": bos,
        "eos_token": eos,
        "unk_token": unk,
        "pad_token": "<pad>" if "<pad>" in added else unk,
        "additional_special_tokens": [token for token in added if token != "<pad>"],
        "clean_up_tokenization_spaces": False,
        # Without this, token_type_ids are made, and `generate` refuses them.
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
    }
    config |= {} if processor is None else {"processor_class": processor}
    (folder / "tokenizer.json").write_text(content + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def _content(pieces: Any, special: tuple[str, str, str], added: Sequence[str]) -> dict[str, Any]:
    """Return the contents of `tokenizer.json`."""
    unk, bos, _ = special
    vocabulary = {pieces.id_to_piece(id_): id_ for id_ in range(pieces.get_piece_size())}
    merges = _merges(pieces, vocabulary)
    bpe = BPE(vocabulary, merges, unk_token=unk, fuse_unk=True, byte_fallback=True)
    tokenizer: Any = Tokenizer(bpe)
    spaces = [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, vocabulary[bos])]
    )
    text = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*text, decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(one, normalized=False) for one in (*special, *added)])
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    # As text, not as pairs: tokenizers before 0.20 read only text.
    content["model"]["merges"] = [" ".join(merge) for merge in merges]
    return content


def _merges(pieces: Any, vocabulary: dict[str, int]) -> list[Merge]:
    """Return the pairs of tokens that merge, best first.

    sentencepiece joins the two neighbors whose union has the highest score, the leftmost of equals.
    All tokens of spaces have the same score in LLaMA's vocabulary: a run of spaces grows from the
    left, so the merge with the longest left token comes first.
    """
    learned = {piece for piece, id_ in vocabulary.items() if not _is_special(pieces, id_)}
    ranked = [
        (-pieces.get_score(vocabulary[piece]), -cut, (piece[:cut], piece[cut:]))
        for piece in learned
        for cut in range(1, len(piece))
        if piece[:cut] in learned and piece[cut:] in learned
    ]
    return [merge for *_, merge in sorted(ranked)]


def _check(path: Path, pieces: Any, content: str) -> None:
    """Refuse a model whose ids the file does not reproduce.

    sentencepiece does not expose the algorithm and normalisation by which a model splits text. So
    every token of the vocabulary, and texts that distinguish tokenizers, are encoded with both.
    """
    ids = range(pieces.get_piece_size())
    learned = [id_ for id_ in ids if not _is_special(pieces, id_)]
    # Scores of learned tokens begin at -0.0; those of user-defined symbols are 0.0.
    if any(pieces.is_unused(id_) or copysign(1, pieces.get_score(id_)) > 0 for id_ in learned):
        raise _not_llama_error(path, "it has unused tokens or user-defined symbols")
    spelled = [pieces.id_to_piece(id_).replace(SPACE, " ") for id_ in ids]
    written = Tokenizer.from_str(content)
    written.encode_special_tokens = True  # treated as text here, as in sentencepiece
    texts = [*PROBES, *spelled]
    found = written.encode_batch(texts, add_special_tokens=False)
    for text, expected, encoding in zip(texts, pieces.encode(texts), found, strict=True):
        if encoding.ids != expected:
            raise _not_llama_error(
                path, f"it encodes {text!r} as {expected}, not as {encoding.ids}"
            )


def _is_special(pieces: Any, id_: int) -> bool:
    """Return whether a token is never made by merging, even if text spells it."""
    return bool(pieces.is_control(id_) or pieces.is_unknown(id_) or pieces.is_byte(id_))


def _not_llama_error(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path} is not a byte-fallback BPE model like LLaMA's ({reason}), and tokenizer.json can "
        "be made only from such a model; use the tokenizer.model of the original checkpoint"
    )
