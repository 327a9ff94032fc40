"""Encode prompt chunks to the ids that the reference wrappers produced.

The tokenizers of transformers changed between 4.29 (the papers' version) and today: a chunk that
starts with a space loses its lone "▁". Encoding the chunks with sentencepiece itself gives the
papers' ids on every version. A folder with only `tokenizer.json` (written by transformers 5) is
read with the `tokenizers` library, set up to split text as sentencepiece does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import sentencepiece
from tokenizers import Tokenizer, normalizers
from tokenizers.models import BPE

from models.errors import ModelError
from models.json_files import read_json_object
from models.library_errors import library_errors

LLAMA_BOS, LLAMA_EOS, LLAMA_PAD = 1, 2, 0
MOST_TOKENS: Final = 1 << 31  # more than any vocabulary; some of torch uses 32-bit indices
UNKNOWN: Final = "<unk>"
SPACE: Final = "▁"
BYTES: Final = tuple(f"<0x{value:02X}>" for value in range(256))
REPLACEMENTS: Final = dict.fromkeys(range(0xDC80, 0xDD00), "\N{REPLACEMENT CHARACTER}")


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

    def id_to_piece(self, id_: int, /) -> str:
        """Return a token of the trained vocabulary as it is spelled there, "▁" for a space."""


def check_token_ids(generation: Any) -> None:
    """Check the special tokens of a checkpoint's generation config.

    Raises:
        ModelError: If one of them is neither an id nor a list of ids.
    """
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(generation, name)
        ids = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
        if not all(type(id_) is int and abs(id_) < MOST_TOKENS for id_ in ids):
            raise ModelError(
                f"the checkpoint's {name} is {value!r:.80}, which is not a token id; set it in "
                "generation_config.json"
            )


def check_characters(text: str) -> None:
    """Refuse a prompt that UTF-8, which tokenizers read, can't encode.

    Raises:
        ModelError: Naming half of a surrogate pair, which can come from a JSON file or from a
            command's argument that is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ModelError(
            f"the prompt contains half of a surrogate pair ({text[error.start]!r}), which is not "
            "text; write the character itself, or leave it out"
        ) from error


class SentencePieceTokenizer(sentencepiece.SentencePieceProcessor):
    """A `tokenizer.model` file."""

    def __init__(self, path: Path) -> None:
        """Load the file.

        Raises:
            ModelError: If it is not a sentencepiece model.
        """
        advice = "copy tokenizer.model from the original checkpoint again"
        with library_errors(f"{path} is not a sentencepiece model", advice):
            super().__init__(model_file=str(path))

    def decode(self, ids: Sequence[int], /) -> str:  # type: ignore[override]  # of ids alone
        """Return the text of ids; control tokens, <unk> and ids added after training are left out.

        <unk> is a special token in LLaMA's tokenizers, and pads answers that ended early.
        """
        size, unknown = self.get_piece_size(), self.unk_id()
        return str(super().decode([id_ for id_ in ids if id_ < size and id_ != unknown]))


class JsonTokenizer:
    """A LLaMA `tokenizer.json` file; only its vocabulary and merges are used.

    It splits text as sentencepiece does; special tokens in a text are treated as text.
    """

    def __init__(self, path: Path) -> None:
        """Load the file.

        Raises:
            ModelError: If it is not the BPE tokenizer of a LLaMA model.
        """
        content = read_json_object(path, "tokenizer")
        advice = "copy tokenizer.json from the original checkpoint again"
        # The file is deeply nested: any value of an unexpected type means that it is damaged.
        with library_errors(f"{path} is not a LLaMA tokenizer", advice):
            other = _other_kind(content)
            bpe = None if other else _bpe(content["model"])
        if bpe is None:
            raise ModelError(
                f"{path} is {other}; the paper's four models have LLaMA's BPE tokenizer with byte "
                "fallback: put the tokenizer.model of the original checkpoint into the folder"
            )
        self._tokenizer: Any = Tokenizer(bpe)
        steps = [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        self._tokenizer.normalizer = normalizers.Sequence(steps)
        vocabulary: dict[str, int] = content["model"]["vocab"]
        self._spelled = {id_: piece for piece, id_ in vocabulary.items()}
        self._bytes = {vocabulary[name]: value for value, name in enumerate(BYTES)}

    def encode(self, text: str, /) -> list[int]:
        """Return the ids of a chunk of text, without BOS or EOS."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids) if text else []

    def decode(self, ids: Sequence[int], /) -> str:
        """Return the text of ids; control tokens, <unk> and ids added after training are left out.

        As in sentencepiece, only a byte outside of any character becomes "�"; the decoder of the
        `tokenizers` library also replaces the bytes next to it.
        """
        runs, prefix = [bytearray()], SPACE
        for id_ in ids:
            if id_ in self._bytes:
                runs[-1].append(self._bytes[id_])
                prefix = ""
            elif id_ in (LLAMA_BOS, LLAMA_EOS):
                runs.append(bytearray())  # bytes before and after it do not form a character
            elif id_ in self._spelled and self._spelled[id_] != UNKNOWN:
                runs[-1] += self._spelled[id_].removeprefix(prefix).encode()
                prefix = ""
        text = "".join(run.decode(errors="surrogateescape") for run in runs)
        return text.replace(SPACE, " ").translate(REPLACEMENTS)

    def bos_id(self) -> int:
        """Return the id of the beginning-of-sequence token."""
        return LLAMA_BOS

    def eos_id(self) -> int:
        """Return the id of the end-of-sequence token."""
        return LLAMA_EOS

    def get_piece_size(self) -> int:
        """Return the size of the trained vocabulary, without tokens that were added to it."""
        return len(self._spelled)

    def id_to_piece(self, id_: int, /) -> str:
        """Return a token of the trained vocabulary as it is spelled there, "▁" for a space."""
        return self._spelled[id_]


def _other_kind(content: Any) -> str | None:
    """Return a file's kind if it splits text unlike LLaMA's sentencepiece model; else None."""
    model, steps = content["model"], list(_steps(content))
    kinds = {step["type"] for step in steps}
    if "ByteLevel" in kinds or "ByteLevel" in str(content.get("decoder")):
        return "a byte-level BPE tokenizer, as GPT-2, LLaMA-3 and Qwen have"
    if model["type"] != "BPE":
        return f"a {model['type']} tokenizer"
    if not model.get("byte_fallback") or not set(BYTES) <= model["vocab"].keys():
        return "a BPE tokenizer without byte fallback"
    if other := sorted(kinds - {"Prepend", "Replace", "Metaspace"}):
        return f"a BPE tokenizer that changes or splits text with {', '.join(other)}"
    replaced = [step for step in steps if step["type"] == "Replace"]
    if any((s["pattern"].get("String"), s["content"]) != (" ", SPACE) for s in replaced):
        return "a BPE tokenizer that replaces characters of a text"
    if not any(map(_adds_prefix, steps)):
        return f"a BPE tokenizer that puts no {SPACE!r} in front of a text"
    ids = [model["vocab"].get(token) for token in (UNKNOWN, "<s>", "</s>")]
    if ids != [0, LLAMA_BOS, LLAMA_EOS]:
        return f"a BPE tokenizer whose <unk>, <s> and </s> are {ids}, not [0, 1, 2]"
    return None


def _steps(content: Any) -> Iterator[Any]:
    """Yield a file's steps on a text before tokens are merged."""
    for step in (content.get("normalizer"), content.get("pre_tokenizer")):
        if step is not None:
            yield from step.get("normalizers") or step.get("pretokenizers") or [step]


def _adds_prefix(step: Any) -> bool:
    """Return whether a step puts the dummy prefix in front of a text."""
    if step["type"] == "Prepend":
        return bool(step["prepend"] == SPACE)
    # Files of tokenizers before 0.15 use `add_prefix_space`.
    always = "always" if step.get("add_prefix_space") else "never"
    return bool(step["type"] == "Metaspace" and step.get("prepend_scheme", always) != "never")


def _bpe(model: Any) -> BPE:
    """Return the BPE model of a file, merges best first.

    transformers 4 and `models.tokenizer_json` sort merges by the scores in `tokenizer.model`,
    transformers 5 by id: the same order except for tokens of spaces only, whose scores are LLaMA's
    lowest.

    Raises:
        ValueError: If ids or merges don't fit; `tokenizers` has no specific error for this.
    """
    vocabulary = model["vocab"]
    if set(vocabulary.values()) != set(range(len(vocabulary))):
        raise ValueError("its ids are not 0, 1, 2 and so on")
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    pairs: list[tuple[str, str]] = [(left, right) for left, right in merges]
    if missing := {piece for pair in pairs for piece in (*pair, "".join(pair))} - set(vocabulary):
        raise ValueError(f"its merges name {min(missing)!r}, which is not in its vocabulary")
    ids = [vocabulary[left + right] for left, right in pairs]
    if ids == sorted(ids):
        pairs.sort(key=lambda pair: set("".join(pair)) == {SPACE})
    return BPE(vocabulary, pairs, byte_fallback=True, fuse_unk=True, unk_token=UNKNOWN)
