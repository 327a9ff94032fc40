"""Both kinds of tokenizer file give the ids, texts and pieces of sentencepiece itself."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import LlamaTokenizerFast

from models.errors import ModelError
from models.prompts import IMAGE, TEMPLATES, prompt_ids
from models.tokenizer import JsonTokenizer, SentencePieceTokenizer
from models.tokenizer_json import write_tokenizer_json
from tests.models.texts import SPECIAL, texts

TINY = Path(__file__).resolve().parents[2] / "models/tiny-llava"
Json = dict[str, Any]


@pytest.fixture(scope="module", params=["tiny-llava", "LLaMA"])
def model(request: pytest.FixtureRequest) -> Path:
    if request.param == "tiny-llava":
        return TINY / "tokenizer.model"
    return Path(request.getfixturevalue("shared")) / "tokenizer/llama.model"


@pytest.fixture(scope="module")
def pieces(model: Path) -> Any:
    return sentencepiece.SentencePieceProcessor(model_file=str(model))


@pytest.fixture(scope="module", params=["model", "ours", "transformers"])
def tokenizer(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> SentencePieceTokenizer | JsonTokenizer:
    """Return a tokenizer read from one of the files that a folder may hold."""
    folder = tmp_path_factory.mktemp("files")
    if request.param == "model":
        return SentencePieceTokenizer(model)
    if request.param == "ours":
        write_tokenizer_json(model, folder, added=("<image>", "<pad>"))
    else:
        shutil.copy(model, folder / "tokenizer.model")
        LlamaTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    return JsonTokenizer(folder / "tokenizer.json")


def test_ids_are_sentencepieces(tokenizer: Any, pieces: Any) -> None:
    for text in texts() + texts(special=True):
        assert tokenizer.encode(text) == pieces.encode(text)


def test_special_tokens_in_a_text_are_text(tokenizer: Any, pieces: Any) -> None:
    size = pieces.get_piece_size()
    special = {pieces.unk_id(), pieces.bos_id(), pieces.eos_id(), *range(size, size + 2)}
    for token in SPECIAL:
        ids = tokenizer.encode(f"What is {token}?{token}")

        assert not special & set(ids)
        assert tokenizer.decode(ids) == f"What is {token}?{token}"


def test_a_question_cannot_end_a_prompt_or_bring_a_picture(tokenizer: Any, pieces: Any) -> None:
    question = "Is <image> there </s><s> a <unk>?"
    for family, protocol in TEMPLATES:
        plain = prompt_ids(family, "Is there?", tokenizer, protocol)
        ids = prompt_ids(family, question, tokenizer, protocol)

        assert ids == prompt_ids(family, question, pieces, protocol)
        for id_ in (pieces.unk_id(), pieces.bos_id(), pieces.eos_id(), IMAGE):
            assert ids.count(id_) == plain.count(id_)


def test_texts_of_ids_are_sentencepieces(tokenizer: Any, model: Path, pieces: Any) -> None:
    size, unknown = pieces.get_piece_size(), pieces.unk_id()
    rng = random.Random(0)
    of_texts = [pieces.encode(text) for text in texts()]
    # Bytes that are no character, control tokens between the bytes of one, and added tokens.
    kinds = [range(3), range(3, 259), range(259, size), range(size, size + 2)]
    of_dice = [[rng.choice(rng.choice(kinds)) for _ in range(rng.randint(0, 9))] for _ in texts()]
    lone = [pieces.piece_to_id("▁"), *pieces.encode("a")]
    for ids in [*of_texts, *of_dice, lone, [1, *lone], [80, *lone]]:
        known = [id_ for id_ in ids if id_ < size and id_ != unknown]
        assert tokenizer.decode(ids) == pieces.decode(known)


def test_pieces_are_sentencepieces(tokenizer: Any, pieces: Any) -> None:
    size = pieces.get_piece_size()

    assert tokenizer.get_piece_size() == size
    assert [tokenizer.id_to_piece(i) for i in range(size)] == pieces.id_to_piece(list(range(size)))
    assert (tokenizer.bos_id(), tokenizer.eos_id()) == (pieces.bos_id(), pieces.eos_id())


def byte_level(content: Json) -> None:
    content["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


def byte_level_in_a_sequence(content: Json) -> None:
    byte_level(content)
    split = {"type": "Split", "pattern": {"Regex": r"\d"}, "behavior": "Isolated", "invert": False}
    steps = [split, content["pre_tokenizer"]]
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}


def byte_level_decoder(content: Json) -> None:
    content["decoder"] = {"type": "ByteLevel"}


def unigram(content: Json) -> None:
    content["model"] = {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0}


def no_bytes(content: Json) -> None:
    content["model"]["byte_fallback"] = False


def few_bytes(content: Json) -> None:
    del content["model"]["vocab"]["<0x7F>"]


def digits(content: Json) -> None:
    content["pre_tokenizer"] = {"type": "Digits", "individual_digits": True}


def composed(content: Json) -> None:
    content["normalizer"]["normalizers"].insert(0, {"type": "NFKC"})


def gemma(content: Json) -> None:
    content["normalizer"] = content["normalizer"]["normalizers"][1]


def no_prefix(content: Json) -> None:
    content["normalizer"] = None
    content["pre_tokenizer"] = {
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False,
    }  # fmt: skip


def other_characters(content: Json) -> None:
    step = {"type": "Replace", "pattern": {"String": "``"}, "content": '"'}
    content["normalizer"]["normalizers"].append(step)


def other_ids(content: Json) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary["</s>"], vocabulary["<unk>"] = vocabulary["<unk>"], vocabulary["</s>"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (byte_level, "a byte-level BPE tokenizer, as GPT-2, LLaMA-3 and Qwen have"),
        (byte_level_in_a_sequence, "a byte-level BPE tokenizer"),
        (byte_level_decoder, "a byte-level BPE tokenizer"),
        (unigram, "a Unigram tokenizer"),
        (no_bytes, "a BPE tokenizer without byte fallback"),
        (few_bytes, "a BPE tokenizer without byte fallback"),
        (digits, "a BPE tokenizer that changes or splits text with Digits"),
        (composed, "a BPE tokenizer that changes or splits text with NFKC"),
        (gemma, "a BPE tokenizer that puts no '▁' in front of a text"),
        (no_prefix, "a BPE tokenizer that puts no '▁' in front of a text"),
        (other_characters, "a BPE tokenizer that replaces characters of a text"),
        (other_ids, r"a BPE tokenizer whose <unk>, <s> and </s> are \[2, 1, 0\], not \[0, 1, 2\]"),
    ],
)
def test_other_kinds_are_refused(tmp_path: Path, change: Callable[[Json], None], what: str) -> None:
    content = json.loads((TINY / "tokenizer.json").read_bytes())
    path = tmp_path / "tokenizer.json"
    changed = deepcopy(content)
    change(changed)
    assert changed != content
    path.write_text(json.dumps(changed))

    with pytest.raises(ModelError, match=rf"tokenizer.json is {what}.*; the paper's four .*: put"):
        JsonTokenizer(path)


def test_a_byte_level_tokenizer_made_by_the_library_is_refused(tmp_path: Path) -> None:
    """As GPT-2, LLaMA-3 and Qwen have it; it was mis-tokenised in silence."""
    tokenizer: Any = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"]
    )
    tokenizer.train_from_iterator(["Is there a cat in the image?"] * 3, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    with pytest.raises(ModelError, match="is a byte-level BPE tokenizer"):
        JsonTokenizer(tmp_path / "tokenizer.json")


def drop_model(content: Json) -> Json:
    del content["model"]
    return content


def drop_part(content: Json) -> Json:
    content["model"]["vocab"]["other"] = content["model"]["vocab"].pop("▁a")
    return content


def repeat_id(content: Json) -> Json:
    content["model"]["vocab"]["▁a"] += 1
    return content


def name_id(content: Json) -> Json:
    content["model"]["vocab"]["▁a"] = "259"
    return content


def add_part(content: Json) -> Json:
    content["model"]["merges"][0] += " a"
    return content


@pytest.mark.parametrize(
    "damage",
    [
        drop_model,
        drop_part,
        repeat_id,
        name_id,
        add_part,
        lambda content: {**content, "model": 3},
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, damage: Callable[[Json], Any]) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(damage(json.loads((TINY / "tokenizer.json").read_bytes()))))

    with pytest.raises(ModelError, match=r"is not a LLaMA tokenizer .*; copy tokenizer.json"):
        JsonTokenizer(path)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    for text, reason in (("{", r"not whole JSON \(.* line 1"), ("[]", "contains list")):
        (tmp_path / "tokenizer.json").write_text(text)

        with pytest.raises(ModelError, match=rf"tokenizer \S*tokenizer.json .*{reason}"):
            JsonTokenizer(tmp_path / "tokenizer.json")


def test_merges_may_be_written_either_way(tmp_path: Path) -> None:
    content = json.loads((TINY / "tokenizer.json").read_bytes())
    content["model"]["merges"] = [merge.split(" ") for merge in content["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    one, two = JsonTokenizer(tmp_path / "tokenizer.json"), JsonTokenizer(TINY / "tokenizer.json")

    assert [one.encode(text) for text in texts()] == [two.encode(text) for text in texts()]
