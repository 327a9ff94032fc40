"""`HFVlm` on tiny checkpoints of many families, beside plain scripts with their processors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from PIL import Image

import eah
import models
from models.chat import Chat
from models.decoding.base import MethodError
from models.decoding.dola import Dola
from models.decoding.opera import Opera
from models.decoding.pai import Pai
from models.decoding.vcd import Vcd
from models.decoding.yes_no import yes_no_ids
from models.errors import ModelError
from models.generation import ProcessedPrompts
from models.hf import HFVlm, Picture
from models.prefix_cache import PicturePrefixes, PrefixCache
from models.processor import load_processor
from tests.models.hf import CHECKPOINTS
from tests.models.hf.asking import encode
from tests.models.hf.checkpoint import FIVE
from tests.models.hf.conftest import Loaded, Wrap

QUESTIONS = (
    "Is there a cat in the image?",
    "Is there a stop sign in the image? Please describe this image in detail.",
    "no",
    "Is there a cat in the image?",
)
PICTURES = (0, 0, 1, 2)
NEW = 8
NOISED = 4  # tokens under VCD, each checked with forward passes of whole prompts
# Every column of a random map is below uniform attention's 1.25-fold in most heads.
CONFIG = eah.EAHConfig.preset("scale-free", layers=(1,), threshold=0.1)
families = pytest.mark.parametrize("name", CHECKPOINTS)
arms = pytest.mark.parametrize("config", [None, CONFIG], ids=["baseline", "eah"])
# Where each question runs the picture again, and a word of the reason.
GIVEN_IDS = {
    "aya-vision": "window",
    "blip-2": "no embeddings",
    "gemma3": "window",
    "glm-4v": "M-RoPE",
    "idefics2": "window",
    "instructblip": "no embeddings",
    "ovis2": "differ",
    "paligemma": "its own attention masks",
    "qwen2-vl": "M-RoPE",
    "qwen2.5-vl": "M-RoPE",
    "qwen3-vl": "M-RoPE",
}
if not FIVE:  # its decoder is the whole model there
    GIVEN_IDS["idefics3"] = "not given embeddings"
QFORMERS = {"blip-2", "instructblip"}  # their `generate` runs an inner model
FLAT = {"qwen2-vl", "qwen2.5-vl", "qwen3-vl", "glm-4v"}  # pixels as patches
# One by embeddings, one with three axes of positions, one with windows, one with a Q-Former.
BEAMS = ("llava", "qwen3-vl", "gemma3", "instructblip")


def features(vlm: HFVlm, pictures: Sequence[Image.Image]) -> list[Picture]:
    shown = vlm.encode(vlm.preprocess([pictures[at] for at in dict.fromkeys(PICTURES)]))
    return [shown[at] for at in PICTURES]


def enabled(vlm: HFVlm, config: eah.EAHConfig | None) -> Any:
    return nullcontext() if config is None else eah.enabled(vlm.model, config)


def plain_answer(
    vlm: HFVlm, loaded: Loaded, question: str, picture: Image.Image, **how: Any
) -> str:
    """Return what a plain script answers: the processor's inputs, and `generate`."""
    inputs = encode(loaded.processor, loaded.checkpoint, [question], [[picture]])
    ids = loaded.model.generate(**inputs, max_new_tokens=NEW, **{"do_sample": False, **how})
    new = ids[0, inputs["input_ids"].shape[1] :]
    return str(loaded.processor.tokenizer.decode(new, skip_special_tokens=True)).strip()


@families
def test_a_batch_is_what_the_processor_makes_of_it(
    name: str, wrap: Wrap, load: Callable[[str], Loaded], pictures: list[Image.Image]
) -> None:
    """Ids, masks and pixels, padded; pictures of three shapes."""
    if name in QFORMERS:
        pytest.skip("its processor pads behind the image tokens; answers are compared elsewhere")
    vlm, loaded = wrap(name), load(name)
    vlm_note, vlm.note = vlm.note, "as ids"
    try:
        batch = vlm.encode_prompts(features(vlm, pictures), QUESTIONS)
    finally:
        vlm.note = vlm_note
    expected = encode(
        loaded.processor, loaded.checkpoint, QUESTIONS, [[pictures[at]] for at in PICTURES]
    )

    assert isinstance(batch, ProcessedPrompts)
    assert batch.inputs.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(batch.inputs[key], value), key


@arms
@pytest.mark.parametrize(
    ("name", "beams"), [*((name, 1) for name in CHECKPOINTS), *((name, 3) for name in BEAMS)]
)
def test_answers_are_a_plain_scripts_alone_and_in_a_batch(
    name: str,
    beams: int,
    config: eah.EAHConfig | None,
    wrap: Wrap,
    load: Callable[[str], Loaded],
    pictures: list[Image.Image],
) -> None:
    vlm, loaded = wrap(name), load(name)
    decoding = models.Decoding(max_new_tokens=NEW, num_beams=beams)
    shown = features(vlm, pictures)
    with enabled(vlm, config):
        together = [answer.text for answer in vlm.answer_batch(shown, QUESTIONS, decoding)]
        alone = [
            vlm.answer_batch([picture], [question], decoding)[0].text
            for picture, question in zip(shown, QUESTIONS, strict=True)
        ]
        plain = [
            plain_answer(vlm, loaded, question, pictures[at], num_beams=beams)
            for question, at in zip(QUESTIONS, PICTURES, strict=True)
        ]

    assert together == alone == plain
    assert len(set(together)) > 1


@families
def test_eah_finds_the_image_tokens_by_itself(
    name: str, wrap: Wrap, load: Callable[[str], Loaded], pictures: list[Image.Image]
) -> None:
    vlm, loaded = wrap(name), load(name)
    placeholder = loaded.processor.tokenizer.convert_tokens_to_ids(loaded.checkpoint.placeholder)
    shown = features(vlm, pictures)
    with eah.observe(vlm.model, layers="all") as seen:
        vlm.answer_batch(shown, QUESTIONS, models.Decoding(1))
        found = {layer.image_tokens for layer in seen.report()}

    expected = tuple(
        vlm.shown_prompt(question, pictures[at]).ids.count(placeholder)
        for question, at in zip(QUESTIONS, PICTURES, strict=True)
    )
    assert found == {expected}
    assert min(expected) >= 2


@families
def test_the_reason_for_running_a_picture_again_is_known(name: str, wrap: Wrap) -> None:
    vlm = wrap(name)
    if name not in GIVEN_IDS:
        assert vlm.prefix_note is None
        return
    assert GIVEN_IDS[name] in str(vlm.prefix_note)


@families
@arms
def test_cached_prefixes_change_no_answer(
    name: str, config: eah.EAHConfig | None, wrap: Wrap, pictures: list[Image.Image]
) -> None:
    vlm, store = wrap(name), PrefixCache()
    decoding = models.Decoding(max_new_tokens=NEW)
    # Of one shape, so that all prefixes are as long as each other.
    same = [picture.resize((128, 96)) for picture in pictures]
    shown = features(vlm, same)
    with enabled(vlm, config) as handle:
        whole = vlm.answer_batch(shown, QUESTIONS, decoding)
        expected = handle and handle.report()
        reused = vlm.answer_batch(
            shown, QUESTIONS, decoding, prefixes=PicturePrefixes(PICTURES, store)
        )
        assert (handle and handle.report()) == expected

    assert reused == whole
    # Under EAH, questions about a picture may choose other heads, each with a prefix of its own.
    assert (store.prompts > 0) == (name not in GIVEN_IDS)
    assert config is not None or (store.reused > 0) == (name not in GIVEN_IDS)


def test_pictures_of_different_lengths_share_no_prefix(
    wrap: Wrap, pictures: list[Image.Image]
) -> None:
    """LLaVA-NeXT cuts pictures into more or fewer tiles."""
    vlm, decoding = wrap("llava-next"), models.Decoding(NEW)
    shown = features(vlm, pictures)
    assert len({len(picture.tokens) for picture in shown if picture.tokens is not None}) > 1
    both = PicturePrefixes(PICTURES, PrefixCache())
    assert vlm.answer_batch(shown, QUESTIONS, decoding, prefixes=both) == vlm.answer_batch(
        shown, QUESTIONS, decoding
    )


def test_a_question_before_the_picture_has_no_common_prefix(
    load: Callable[[str], Loaded], pictures: list[Image.Image]
) -> None:
    """Behind another question's prefix, an answer would be to that question."""
    loaded = load("llava")
    own = loaded.processor.chat_template
    loaded.processor.chat_template = (
        "USER: {% for part in messages[0]['content'] %}{{ part.get('text', '') }}{% endfor %} "
        "<image> ASSISTANT:"
    )
    try:
        vlm, prefixes = HFVlm(loaded.model, loaded.processor), PrefixCache()
        shown = [vlm.encode(vlm.preprocess(pictures[:1]))[0]] * 2
        # Two of one length, so that only what they say tells their prefixes apart.
        by_length: dict[int, list[str]] = {}
        for word in ("cat", "dog", "bus", "car", "cup", "bird", "chair"):
            question = f"Is there a {word}?"
            by_length.setdefault(len(vlm.prompt_ids(question)), []).append(question)
        questions, decoding = max(by_length.values(), key=len)[:2], models.Decoding(NEW)
        whole = vlm.answer_batch(shown, questions, decoding)
        both = PicturePrefixes((0, 0), prefixes)
        assert vlm.answer_batch(shown, questions, decoding, prefixes=both) == whole
        assert whole[0] != whole[1]
        assert prefixes.reused == 0
    finally:
        loaded.processor.chat_template = own


@families
@arms
def test_vcd_contrasts_noised_pixels_or_says_that_there_are_none(
    name: str, config: eah.EAHConfig | None, wrap: Wrap, pictures: list[Image.Image]
) -> None:
    """Against a loop that runs both prompts whole for every token."""
    vlm, method = wrap(name), Vcd(noise_step=700)
    if name in FLAT:
        with pytest.raises(MethodError, match="adds noise to pixels, but the processor of"):
            vlm.check_method(method)
        return
    prepared = vlm.preprocess(pictures[:2])
    noised = [vlm.add_noise(one, method, seed) for seed, one in enumerate(prepared)]
    with enabled(vlm, config):
        answers = vlm.answer_batch(
            vlm.encode(prepared),
            QUESTIONS[:2],
            models.Decoding(NOISED),
            method,
            vlm.encode(noised),
        )
        expected = [
            contrasted_by_hand(vlm, [clear, dim], question)
            for clear, dim, question in zip(prepared, noised, QUESTIONS, strict=False)
        ]
    assert [answer.text for answer in answers] == expected
    plain = vlm.answer_batch(vlm.encode(prepared), QUESTIONS[:2], models.Decoding(NOISED))
    assert answers != plain


@torch.no_grad()
def contrasted_by_hand(vlm: HFVlm, pair: Sequence[Any], question: str) -> str:
    """Return VCD's answer without a cache: equations 2 to 4 with alpha 1 and beta 0.1."""
    ids: list[int] = []
    for _ in range(NOISED):
        scores = []
        for one in pair:
            inputs = {**one.pixels, **vlm.chat.prepare_text(one, question)}
            made = vlm.model.generate(
                **inputs,
                max_new_tokens=len(ids) + 1,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                logits_processor=[Forced(ids)],
            )
            scores.append(made.logits[len(ids)][0])
        clear, dim = scores
        chosen = 2 * clear - dim
        chosen[clear < clear.max() + torch.tensor(0.1).log()] = -torch.inf
        ids.append(int(chosen.argmax()))
        if ids[-1] in vlm.eos_ids:
            break
    return vlm._answer(ids).text


class Forced:
    """A logits processor that makes `generate` take given tokens."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.left = list(ids)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.left:
            scores = torch.full_like(scores, -torch.inf)
            scores[:, self.left.pop(0)] = 0
        return scores


@families
def test_dola_answers_alone_as_in_a_batch(
    name: str, wrap: Wrap, pictures: list[Image.Image]
) -> None:
    vlm = wrap(name)
    shown = features(vlm, pictures)
    if name in QFORMERS:
        with pytest.raises(MethodError, match="does not expose; use another method"):
            vlm.answer_batch(shown, QUESTIONS, models.Decoding(NEW), Dola("low"))
        return
    if name == "qwen3-vl" and not FIVE:  # its last hidden state is not normalised there
        with pytest.raises(MethodError, match="scales or caps its logits"):
            vlm.answer_batch(shown, QUESTIONS, models.Decoding(NEW), Dola("low"))
        return
    answers = vlm.answer_batch(shown, QUESTIONS, models.Decoding(NEW), Dola("low"))
    alone = [
        vlm.answer_batch([picture], [question], models.Decoding(NEW), Dola("low"))[0]
        for picture, question in zip(shown, QUESTIONS, strict=True)
    ]
    assert answers == alone
    assert answers != vlm.answer_batch(shown, QUESTIONS, models.Decoding(NEW))


def test_dola_is_refused_where_logits_are_more_than_the_output_layer(
    wrap: Wrap, pictures: list[Image.Image]
) -> None:
    vlm = wrap("llava")

    def scale(_: Any, __: Any, output: Any) -> None:
        output.logits = output.logits * 0.5

    hook = vlm.model.register_forward_hook(scale)
    try:
        with pytest.raises(MethodError, match="scales or caps its logits"):
            vlm.answer_batch(features(vlm, pictures), QUESTIONS, models.Decoding(2), Dola("low"))
    finally:
        hook.remove()


@families
@pytest.mark.parametrize("method", [Opera(num_attn_candidates=3), Pai()], ids=["opera", "pai"])
def test_opera_and_pai_run_on_plain_attention_or_are_refused_by_name(
    name: str, method: Any, wrap: Wrap, pictures: list[Image.Image]
) -> None:
    vlm = wrap(name)
    beams = 3 if isinstance(method, Opera) else 1
    decoding = models.Decoding(4, num_beams=beams)
    shown = features(vlm, pictures)
    if name in GIVEN_IDS:
        with pytest.raises(MethodError, match=f"{method.title} needs prompts as embed"):
            vlm.answer_batch(shown, QUESTIONS, decoding, method)
        return
    together = vlm.answer_batch(shown, QUESTIONS, decoding, method)
    alone = [
        vlm.answer_batch([picture], [question], decoding, method)[0]
        for picture, question in zip(shown, QUESTIONS, strict=True)
    ]
    assert together == alone


@families
def test_yes_and_no_have_tokens_and_a_probability(
    name: str, wrap: Wrap, pictures: list[Image.Image]
) -> None:
    """Against the scores of a forward pass."""
    vlm = wrap(name)
    words = yes_no_ids(vlm.tokenizer)
    assert {piece.strip("▁").lower() for piece in words.yes.values()} == {"yes"}
    starts = {piece.startswith("▁") for piece in words.yes.values()}
    assert starts == {False, True}, "with a space before it, and without"
    answer = vlm.answer_batch(
        vlm.encode(vlm.preprocess(pictures[:1])), QUESTIONS[:1], models.Decoding(1), yes_no=words
    )[0]
    with torch.no_grad():
        logits = vlm.model(**vlm.chat.inputs(QUESTIONS[0], pictures[:1])).logits[0, -1]
    share = logits.double().softmax(-1)
    yes, no = share[list(words.yes)].sum(), share[list(words.no)].sum()
    assert answer.p_yes == pytest.approx(float(yes / (yes + no)), rel=1e-3, abs=1e-12)


@families
def test_sampling_draws_by_the_seed(name: str, wrap: Wrap, pictures: list[Image.Image]) -> None:
    vlm, decoding = wrap(name), models.Decoding(NEW, do_sample=True, temperature=1.5)
    shown = features(vlm, pictures)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(vlm.answer_batch(shown, QUESTIONS, decoding))
    assert drawn[0] == drawn[1]


def test_a_checkpoints_own_generation_settings_change_no_answer(
    wrap: Wrap, load: Callable[[str], Loaded], pictures: list[Image.Image]
) -> None:
    loaded = load("llava")
    before = wrap("llava").answer_batch(
        features(wrap("llava"), pictures), QUESTIONS, models.Decoding(NEW)
    )
    loaded.model.generation_config.repetition_penalty = 50.0
    loaded.model.generation_config.do_sample = True
    vlm = HFVlm(loaded.model, loaded.processor)
    assert vlm.answer_batch(features(vlm, pictures), QUESTIONS, models.Decoding(NEW)) == before


@pytest.mark.parametrize("name", ["llava", "idefics3"])
def test_a_system_message_is_in_the_prompt(
    name: str, wrap: Wrap, pictures: list[Image.Image]
) -> None:
    chat = Chat(wrap(name).chat.processor, "Answer like a pirate.")
    assert "Answer like a pirate." in chat.text("Is there a cat?")
    assert len(chat.show_prompt("Is there a cat?", pictures[0]).ids) > len(
        wrap(name).shown_prompt("Is there a cat?", pictures[0]).ids
    )


def test_a_system_message_without_a_template_is_refused(wrap: Wrap) -> None:
    chat = Chat(wrap("paligemma").chat.processor, "Be brief.")
    with pytest.raises(ModelError, match="has no chat template for a system message; leave --sys"):
        chat.text("Is there a cat?")


def test_a_template_that_leaves_the_system_message_out_is_refused(wrap: Wrap) -> None:
    processor = wrap("llava").chat.processor
    own = processor.chat_template
    processor.chat_template = (
        "{% for m in messages if m.role == 'user' %}<image>{{ m.content[1].text }}{% endfor %}"
    )
    try:
        with pytest.raises(ModelError, match="leaves the system message out"):
            Chat(processor, "Be brief.").text("Is there a cat?")
    finally:
        processor.chat_template = own


def test_a_template_without_a_place_for_the_picture_is_refused(
    load: Callable[[str], Loaded],
) -> None:
    loaded = load("llava")
    own = loaded.processor.chat_template
    loaded.processor.chat_template = "{% for m in messages %}USER: {{ m.role }}{% endfor %}"
    try:
        with pytest.raises(ModelError, match=r"no place for a picture|can't make a prompt"):
            HFVlm(loaded.model, loaded.processor)
    finally:
        loaded.processor.chat_template = own


@families
def test_special_tokens_in_a_question_are_refused(name: str, wrap: Wrap) -> None:
    """They would be tokens, not text: another picture's placeholder, or the end of the turn."""
    chat = wrap(name).chat
    token = chat.tokenizer.convert_ids_to_tokens(wrap(name).eos_ids[0])
    with pytest.raises(ModelError, match="which is a special token of this model, not text"):
        chat.text(f"Is there a {token} in the image?")


def test_a_template_that_leaves_the_question_out_is_refused(wrap: Wrap) -> None:
    processor = wrap("llava").chat.processor
    own = processor.chat_template
    processor.chat_template = "USER: <image> ASSISTANT:"
    try:
        with pytest.raises(ModelError, match=r"leaves the question out .*; pass another"):
            Chat(processor).text("Is there a cat?")
    finally:
        processor.chat_template = own


def test_added_tokens_that_are_words_are_text(load: Callable[[str], Loaded]) -> None:
    """Only special tokens are refused: families add words and markup to their vocabularies."""
    loaded = load("llava")
    chat = Chat(load_processor(str(loaded.folder), loaded.model.config))
    chat.tokenizer.add_tokens(["zebra"])
    assert "zebra" in chat.text("Is there a zebra in the image?")


def test_an_unknown_protocol_names_the_two(load: Callable[[str], Loaded]) -> None:
    loaded = load("llava")
    with pytest.raises(ModelError, match=r"protocol 'opera' is unknown to --model hf.*chat"):
        HFVlm(loaded.model, loaded.processor, protocol="opera")
