"""The `tokenizer.json` that we write: transformers gives the ids of `tokenizer.model` with it."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from transformers import AutoTokenizer

from models.errors import ModelError
from models.prompts import IMAGE, TEMPLATES, Token, prompt_ids
from models.tokenizer import JsonTokenizer, SentencePieceTokenizer
from models.tokenizer_json import write_tokenizer_json
from tests.models.texts import COUNT, SPECIAL, texts

TINY = Path(__file__).resolve().parents[2] / "models/tiny-llava"
ADDED = ("<image>", "<pad>")
BOS = 1


@pytest.fixture(scope="module", params=["tiny-llava", "LLaMA"])
def model(request: pytest.FixtureRequest) -> Path:
    if request.param == "tiny-llava":
        return TINY / "tokenizer.model"
    return Path(request.getfixturevalue("shared")) / "tokenizer/llama.model"


@pytest.fixture(scope="module")
def pieces(model: Path) -> Any:
    return sentencepiece.SentencePieceProcessor(model_file=str(model))


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as a checkpoint has it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "config.json").write_text(json.dumps({"model_type": "llava"}))
    shutil.copy(model, folder / "tokenizer.model")
    write_tokenizer_json(model, folder, added=ADDED, processor="LlavaProcessor")
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def ids_by_chunks(pieces: Any, text: str) -> list[int]:
    """Return the ids of a text, each special token one id, each text between them by itself."""
    size = pieces.get_piece_size()
    names = {"<unk>": 0, "<s>": 1, "</s>": 2, "<image>": size, "<pad>": size + 1}
    ids = []
    for chunk in re.split(f"({'|'.join(map(re.escape, SPECIAL))})", text):
        ids += [names[chunk]] if chunk in names else pieces.encode(chunk)
    return ids


def test_texts_have_the_ids_of_sentencepiece(tokenizer: Any, pieces: Any) -> None:
    asked = texts()
    found = tokenizer(asked, add_special_tokens=False)["input_ids"]

    assert len(set(asked)) > COUNT - 10
    # An empty text is no chunk of a prompt; the dummy prefix is put in front of it, too.
    assert found[0] in ([], [pieces.piece_to_id("▁")])
    assert found[1:] == [pieces.encode(text) for text in asked[1:]]
    assert max(map(max, found[1:])) < pieces.get_piece_size()


def test_texts_between_special_tokens_are_encoded_by_themselves(
    tokenizer: Any, pieces: Any
) -> None:
    asked = texts(special=True)[1:]
    found = tokenizer(asked)["input_ids"]

    assert sum(pieces.get_piece_size() in ids for ids in found) > COUNT / 10
    assert found == [[BOS, *ids_by_chunks(pieces, text)] for text in asked]


def test_a_pair_of_texts_and_padding(tokenizer: Any, pieces: Any) -> None:
    one, two = pieces.encode("a cat"), pieces.encode("a dog and more")

    assert tokenizer("a cat", "a dog and more")["input_ids"] == [BOS, *one, BOS, *two]
    batch = tokenizer(["a cat", "a dog and more"], padding=True)
    assert set(batch) == {"input_ids", "attention_mask"}
    padded = len(two) - len(one)
    assert batch["input_ids"][0] == [pieces.get_piece_size() + 1] * padded + [BOS, *one]
    assert batch["attention_mask"][0] == [0] * padded + [1] * (len(one) + 1)


@pytest.mark.parametrize("protocol", ["opera", "official"])
def test_whole_prompts_have_our_ids(
    tokenizer: Any, pieces: Any, model: Path, protocol: str
) -> None:
    spelled = {Token.BOS: "", Token.IMAGE: "<image>"}
    template = "".join(
        piece if isinstance(piece, str) else spelled[piece]
        for piece in TEMPLATES["llava-1.5", protocol]
    )
    ours = SentencePieceTokenizer(model)
    for question in texts():
        expected = prompt_ids("llava-1.5", question, ours, protocol)
        image = [pieces.get_piece_size() if id_ == IMAGE else id_ for id_ in expected]

        assert tokenizer(template.replace("{question}", question))["input_ids"] == image


def test_decoding_is_sentencepieces(tokenizer: Any, pieces: Any) -> None:
    for text in texts():
        ids = pieces.encode(text)

        assert tokenizer.decode([BOS, *ids, 2], skip_special_tokens=True) == pieces.decode(ids)


def test_ours_and_special_tokens(tokenizer: Any, folder: Path, pieces: Any) -> None:
    size = pieces.get_piece_size()
    found = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]

    assert [*found, tokenizer.pad_token_id] == [1, 2, 0, size + 1]
    assert (len(tokenizer), tokenizer.convert_tokens_to_ids("<image>")) == (size + 2, size)
    assert JsonTokenizer(folder / "tokenizer.json").get_piece_size() == size


def test_saved_again_it_gives_the_same_ids(
    tokenizer: Any, folder: Path, pieces: Any, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    again, read = (
        AutoTokenizer.from_pretrained(tmp_path),
        JsonTokenizer(tmp_path / "tokenizer.json"),
    )

    for text in texts()[1:]:
        assert again(text)["input_ids"] == [BOS, *pieces.encode(text)]
        assert read.encode(text) == pieces.encode(text)


def test_runs_of_one_piece_are_joined_from_the_left(tokenizer: Any, pieces: Any) -> None:
    """All pieces of spaces have the same score in LLaMA's vocabulary."""
    for unit in (" ", "ha", "an", "=", "aA", ". ", "\n", "0"):
        for count in range(1, 70):
            text = f"x{unit * count}y"
            assert tokenizer(text, add_special_tokens=False)["input_ids"] == pieces.encode(text)


def test_what_tiny_llava_ships_is_what_we_write(tmp_path: Path) -> None:
    write_tokenizer_json(
        TINY / "tokenizer.model", tmp_path, added=ADDED, processor="LlavaProcessor"
    )

    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (TINY / name).read_bytes()


def test_the_shipped_folder_needs_neither_protobuf_nor_sentencepiece() -> None:
    """transformers needs both to convert a tokenizer.model; of protobuf it wants a version."""
    program = (
        "import sys\n"
        "for name in ('google.protobuf', 'sentencepiece'): sys.modules[name] = None\n"
        "from transformers import AutoProcessor\n"
        f"processor = AutoProcessor.from_pretrained({str(TINY)!r})\n"
        "print(processor.tokenizer('USER: <image> Is there a cat?')['input_ids'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(TINY / "tokenizer.model"))
    expected = [BOS, *pieces.encode("USER: "), 640, *pieces.encode(" Is there a cat?")]
    assert json.loads(done.stdout) == expected


def train(**options: Any) -> bytes:
    """Train a small sentencepiece model, of LLaMA's kind unless told otherwise."""
    model = io.BytesIO()
    names = ["the", "cat", "saw", "a", "dog", "on", "one", "mat"]
    lines = [f"{one} {two} and {one}{two}" for one, two in pairwise(names)]
    settings = {
        "model_type": "bpe", "vocab_size": 320, "hard_vocab_limit": False, "byte_fallback": True,
        "character_coverage": 1.0, "unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1,
        "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "minloglevel": 2,
    }  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, **{**settings, **options}
    )
    return model.getvalue()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"byte_fallback": False, "vocab_size": 40}, "it lacks tokens for"),
        ({"bos_id": -1}, "it lacks tokens for"),
        ({"model_type": "unigram"}, "it encodes"),
        ({"normalization_rule_name": "nmt_nfkc"}, "it encodes"),
        ({"remove_extra_whitespaces": True}, "it encodes"),
        ({"add_dummy_prefix": False}, "it encodes"),
        ({"user_defined_symbols": ["the dog"]}, "user-defined symbols"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_other_models_are_refused(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train(**options))

    with pytest.raises(ModelError, match=f"no.* byte-fallback BPE .*{reason}"):
        write_tokenizer_json(path, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_model_of_llamas_kind_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train())

    write_tokenizer_json(path, tmp_path)

    found = AutoTokenizer.from_pretrained(tmp_path)
    assert found.pad_token_id == 0
    expected = sentencepiece.SentencePieceProcessor(model_file=str(path)).encode("the dog")
    assert found("the dog")["input_ids"] == [BOS, *expected]
