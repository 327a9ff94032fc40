"""Prompt ids, against what the slow tokenizer of transformers 4.29.2 gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
from transformers import LlamaTokenizerFast

from models.prompts import IMAGE, TEMPLATES, prompt_ids, template
from models.tokenizer import JsonTokenizer, SentencePieceTokenizer

CHAIR = "Please describe this image in detail."


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, dict[str, list[int]]]:
    return json.loads((shared / "golden/prompt_ids.json").read_text())["models"]


@pytest.fixture(scope="module")
def llama(shared: Path) -> Path:
    return shared / "tokenizer/llama.model"


def test_llava_prompts_equal_the_reference_id_for_id(
    golden: dict[str, dict[str, list[int]]], llama: Path
) -> None:
    tokenizer = SentencePieceTokenizer(llama)
    for question, ids in golden["llava-1.5"].items():
        assert prompt_ids("llava-1.5", question, tokenizer) == ids


def test_a_plain_sentencepiece_processor_will_do(
    golden: dict[str, dict[str, list[int]]], llama: Path
) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(llama))

    assert prompt_ids("llava-1.5", CHAIR, pieces) == golden["llava-1.5"][CHAIR]


def test_image_tokens_lie_where_the_papers_wrapper_has_them(llama: Path) -> None:
    ids = prompt_ids("llava-1.5", CHAIR, SentencePieceTokenizer(llama))

    assert ids.index(IMAGE) == 34  # 34..609 with 576 image tokens
    assert len(ids) - 1 + 576 == 623


def test_llavas_own_prompt_has_the_image_one_later(llama: Path) -> None:
    ids = prompt_ids("llava-1.5", "Is there a cat?", SentencePieceTokenizer(llama), "llava")

    assert ids.index(IMAGE) == 35
    assert ids[ids.index(IMAGE) + 1 :][:2] == [29871, 13]  # lone prefix piece, newline
    assert ids[31:33] == [3148, 1001]  # "US", "ER": the system message ends in a space here


def test_tokenizer_json_gives_the_same_ids(llama: Path, tmp_path: Path) -> None:
    """A folder that transformers 5 saved has tokenizer.json only."""
    (tmp_path / "tokenizer.model").write_bytes(llama.read_bytes())
    LlamaTokenizerFast.from_pretrained(tmp_path).save_pretrained(tmp_path / "saved")
    saved = JsonTokenizer(tmp_path / "saved" / "tokenizer.json")
    pieces = SentencePieceTokenizer(llama)

    for protocol in ("opera", "llava"):
        for question in (CHAIR, "Is there an orange in the imange?", "Ünïcode  two spaces?"):
            expected = prompt_ids("llava-1.5", question, pieces, protocol)
            assert prompt_ids("llava-1.5", question, saved, protocol) == expected
    text = "Yes, there is a cat in the image."
    assert saved.decode(saved.encode(text)).strip() == pieces.decode(pieces.encode(text))


def test_templates_are_frozen() -> None:
    """A changed prompt changes every number: it must be a decision, not a drift."""
    system = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    assert {key: (t.before, t.after) for key, t in TEMPLATES.items()} == {
        ("llava-1.5", "opera"): (system + "USER: ", " {question} ASSISTANT:"),
        ("llava-1.5", "llava"): (system + " USER: ", "\n{question} ASSISTANT:"),
    }


@pytest.mark.parametrize(
    ("model", "protocol", "message"),
    [
        ("llava-1.5", "opra", "protocol 'opra' is unknown to llava-1.5: did you mean 'opera'"),
        ("lava-1.5", "opera", "no prompt for model 'lava-1.5': did you mean 'llava-1.5'"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(
    model: str, protocol: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        template(model, protocol)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_text("not a model")

    with pytest.raises(ValueError, match="is not a sentencepiece model"):
        SentencePieceTokenizer(path)
