"""Prompt ids, against what the slow tokenizer of transformers 4.29.2 gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
from transformers import LlamaTokenizerFast

from models.prompts import IMAGE, TEMPLATES, Token, prompt_ids, template
from models.tokenizer import JsonTokenizer, SentencePieceTokenizer

CHAIR = "Please describe this image in detail."


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, dict[str, list[int]]]:
    return json.loads((shared / "golden/prompt_ids.json").read_text())["models"]


@pytest.fixture(scope="module")
def llama(shared: Path) -> Path:
    return shared / "tokenizer/llama.model"


MODELS = ("llava-1.5", "instructblip", "minigpt4", "shikra")


@pytest.mark.parametrize("model", MODELS)
def test_prompts_equal_the_reference_id_for_id(
    golden: dict[str, dict[str, list[int]]], llama: Path, model: str
) -> None:
    tokenizer = SentencePieceTokenizer(llama)
    assert set(golden) == set(MODELS)
    assert len(golden[model]) == 3
    for question, ids in golden[model].items():
        assert prompt_ids(model, question, tokenizer) == ids


def test_a_plain_sentencepiece_processor_will_do(
    golden: dict[str, dict[str, list[int]]], llama: Path
) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(llama))

    assert prompt_ids("llava-1.5", CHAIR, pieces) == golden["llava-1.5"][CHAIR]


@pytest.mark.parametrize(
    ("model", "protocol", "first", "length"),
    [
        ("llava-1.5", "opera", 34, 623 - 575),
        ("llava-1.5", "official", 35, None),
        ("instructblip", "opera", 0, 40 - 31),
        ("instructblip", "official", 0, 40 - 31),
        ("minigpt4", "opera", 8, 54 - 31),
        ("minigpt4", "official", 42, None),
        ("shikra", "opera", 34, 303 - 255),
        ("shikra", "official", 35, None),
    ],
)
def test_image_tokens_lie_where_the_papers_wrapper_has_them(
    llama: Path, model: str, protocol: str, first: int, length: int | None
) -> None:
    """Lengths are the reference wrappers', the image tokens counted as one."""
    ids = prompt_ids(model, CHAIR, SentencePieceTokenizer(llama), protocol)

    assert ids.index(IMAGE) == first
    assert length in (None, len(ids))


def test_llavas_own_prompt_has_a_space_after_the_system_message(llama: Path) -> None:
    ids = prompt_ids("llava-1.5", "Is there a cat?", SentencePieceTokenizer(llama), "official")

    assert ids[ids.index(IMAGE) + 1 :][:2] == [29871, 13]  # lone prefix piece, newline
    assert ids[31:33] == [3148, 1001]  # "US", "ER"


def test_shikras_tokenizer_strips_spaces_around_its_image_tokens(llama: Path) -> None:
    """The slow tokenizer of transformers 4.29.2 did; later ones leave a lone "▁" (29871)."""
    for protocol in ("opera", "official"):
        ids = prompt_ids("shikra", CHAIR, SentencePieceTokenizer(llama), protocol)
        place = ids.index(IMAGE)

        assert ids[place - 2 : place] == [29901, 32001]  # ":" and <im_start>
        assert ids[place + 1 : place + 3] == [32002, 3529]  # <im_end> and "▁Please"


def test_instructblips_bos_is_eos_and_follows_the_image(llama: Path) -> None:
    ids = prompt_ids("instructblip", CHAIR, SentencePieceTokenizer(llama))

    assert ids[:3] == [IMAGE, 2, 3529]
    assert 1 not in ids


def test_tokenizer_json_gives_the_same_ids(llama: Path, tmp_path: Path) -> None:
    """A folder that transformers 5 saved has tokenizer.json only."""
    (tmp_path / "tokenizer.model").write_bytes(llama.read_bytes())
    LlamaTokenizerFast.from_pretrained(tmp_path).save_pretrained(tmp_path / "saved")
    saved = JsonTokenizer(tmp_path / "saved" / "tokenizer.json")
    pieces = SentencePieceTokenizer(llama)

    for model, protocol in TEMPLATES:
        for question in (CHAIR, "Is there an orange in the imange?", "Ünïcode  two spaces?"):
            expected = prompt_ids(model, question, pieces, protocol)
            assert prompt_ids(model, question, saved, protocol) == expected
    text = "Yes, there is a cat in the image."
    assert saved.decode(saved.encode(text)).strip() == pieces.decode(pieces.encode(text))


def test_templates_are_frozen() -> None:
    """A changed prompt changes every number: it must be a decision, not a drift."""
    system = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    img, start, end = Token.IMAGE, Token.IM_START, Token.IM_END
    minigpt4 = (
        "Give the following image: <Img>ImageContent</Img>. You will be able to see the image once "
        "I provide it to you. Please answer my questions."
    )
    assert {
        ("llava-1.5", "opera"): (Token.BOS, f"{system}USER: ", img, " {question} ASSISTANT:"),
        ("llava-1.5", "official"): (Token.BOS, f"{system} USER: ", img, "\n{question} ASSISTANT:"),
        ("instructblip", "opera"): (img, Token.EOS, "{question}"),
        ("instructblip", "official"): (img, Token.EOS, "{question}"),
        ("minigpt4", "opera"): (
            Token.BOS, "###Human: <Img>", img, "</Img> {question} ###Assistant:"
        ),
        ("minigpt4", "official"): (
            Token.BOS, f"{minigpt4}###Human: <Img>", img, "</Img> {question}###Assistant: "
        ),
        ("shikra", "opera"): (
            Token.BOS, f"{system}USER:", start, img, end, "{question} ASSISTANT:"
        ),
        ("shikra", "official"): (
            Token.BOS, f"{system} USER:", start, img, end, "{question} ASSISTANT:"
        ),
    } == TEMPLATES  # fmt: skip


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
