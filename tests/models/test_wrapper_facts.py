"""Facts of the reference wrappers that are easy to lose: one test each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

import models
from models.blip import MAX_LENGTH
from tests.models.toys import PIECES, QUESTIONS, make_folder, pictures


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toys")


@pytest.fixture(scope="module")
def instructblip(root: Path) -> models.VLM:
    folder = make_folder("instructblip", root / "instructblip")
    return models.load("instructblip", checkpoint=str(folder), device="cpu")


@pytest.fixture(scope="module")
def minigpt4(root: Path) -> models.VLM:
    folder = make_folder("minigpt4", root / "minigpt4")
    return models.load("minigpt4", checkpoint=str(folder), device="cpu")


@pytest.fixture(scope="module")
def shikra(root: Path) -> models.VLM:
    folder = make_folder("shikra", root / "shikra")
    return models.load("shikra", checkpoint=str(folder), device="cpu")


@pytest.mark.parametrize("family", ["instructblip", "minigpt4"])
def test_ln_vision_has_eps_1e_5_and_the_towers_blocks_1e_6(
    request: pytest.FixtureRequest, family: str
) -> None:
    """transformers gives the norm after the tower the blocks' eps; LAVIS has torch's default."""
    vlm = request.getfixturevalue(family)
    tower = vlm.model.vision_model
    states = torch.randn(1, 5, 24) * 1e-3  # a variance of about eps

    found = tower.post_layernorm(states)

    centred = states - states.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    norm = tower.post_layernorm
    expected, other = (
        centred / (variance + eps).sqrt() * norm.weight + norm.bias for eps in (1e-5, 1e-6)
    )
    torch.testing.assert_close(found, expected)
    assert (other - expected).abs().max() > 0.1
    assert {layer.layer_norm1.eps for layer in tower.encoder.layers} == {1e-6}


def test_instructblips_qformer_reads_the_question(instructblip: models.VLM) -> None:
    features = instructblip.encode_images(pictures(1)).expand(3, -1, -1)
    questions = [QUESTIONS[0], QUESTIONS[1], QUESTIONS[0].upper()]

    embeds = instructblip.image_embeds(features, questions)

    assert (embeds[0] - embeds[1]).abs().max() > 0.1
    torch.testing.assert_close(embeds[0], embeds[2])  # lower-cased


def test_instructblips_qformer_reads_the_end_of_a_long_question(instructblip: models.VLM) -> None:
    ids, mask = instructblip.instruction_ids(["dog " * 200 + "cat"])  # type: ignore[attr-defined]

    cls, sep, cat = 2, 3, 12
    assert ids.shape == mask.shape == (1, MAX_LENGTH)
    assert ids[0, 0] == cls
    assert ids[0, -2:].tolist() == [cat, sep]


def test_minigpt4s_image_tokens_do_not_depend_on_the_question(minigpt4: models.VLM) -> None:
    """Bit for bit in calls of one shape; the rows of a batch may be rounded differently."""
    features = minigpt4.encode_images(pictures(1))

    first, second = (minigpt4.image_embeds(features, [question]) for question in QUESTIONS[:2])
    together = minigpt4.image_embeds(features.repeat(2, 1, 1), QUESTIONS[:2])

    assert torch.equal(first, second)
    torch.testing.assert_close(together, first.expand_as(together))


def penalised_greedily(
    vlm: models.VLM, question: str, image: int, penalised: list[int], tokens: int
) -> list[int]:
    """Greedy decoding without a cache, as the penalty is defined: divide, or multiply below 0."""
    features = vlm.encode_images(pictures())[image : image + 1]
    embeds = vlm.embed_prompts(features, [question]).embeds
    table = vlm.language_model.get_input_embeddings()
    found: list[int] = []
    for _ in range(tokens):
        with torch.inference_mode():
            logits = vlm.language_model(inputs_embeds=embeds).logits[0, -1]
            for token in {*found, *penalised}:
                logits[token] = logits[token] * 1.5 if logits[token] < 0 else logits[token] / 1.5
            found.append(int(logits.argmax()))
            embeds = torch.cat([embeds, table(torch.tensor([found[-1:]]))], dim=1)
    return found


def test_instructblips_repetition_penalty_counts_generated_ids_only(
    instructblip: models.VLM,
) -> None:
    """In batches too, where transformers 5 alone spares as many new tokens as a row has padding."""
    tokens = 12
    decoding = models.Decoding(max_new_tokens=tokens)
    answers = instructblip.generate_batch(
        instructblip.encode_images(pictures()), QUESTIONS, decoding
    )

    differs = 0
    for image, (question, answer) in enumerate(zip(QUESTIONS, answers, strict=True)):
        prompt = [id_ for id_ in instructblip.prompt_ids(question) if id_ >= 0]
        expected = penalised_greedily(instructblip, question, image, [], tokens)
        assert answer == instructblip.tokenizer.decode(expected).strip()
        differs += penalised_greedily(instructblip, question, image, prompt, tokens) != expected
    assert differs  # the test could tell


@pytest.mark.parametrize("family", ["minigpt4", "shikra"])
def test_the_other_models_have_no_repetition_penalty(
    request: pytest.FixtureRequest, family: str
) -> None:
    assert not request.getfixturevalue(family).logits_processors()


class Script(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Makes a model write given tokens, and counts its steps."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids
        self.steps = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        forced = torch.full_like(scores, -1e4)
        forced[:, self.ids[min(input_ids.shape[1], len(self.ids) - 1)]] = 0.0
        return forced


def written(
    vlm: models.VLM, monkeypatch: pytest.MonkeyPatch, text: str, beams: int = 1
) -> tuple[models.base.Answer, int, int]:
    """Return the answer where a model writes a text, its steps, and the text's tokens."""
    ids = vlm.tokenizer.encode(text)
    script = Script([*ids, vlm.tokenizer.eos_id()])
    monkeypatch.setattr(vlm, "logits_processors", lambda: LogitsProcessorList([script]))
    decoding = models.Decoding(max_new_tokens=len(ids) + 3, num_beams=beams)
    answer = vlm.answer_batch(vlm.encode_images(pictures(1)), ["What?"], decoding)[0]
    return answer, script.steps, len(ids)


def test_minigpt4_stops_at_three_number_signs(
    minigpt4: models.VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, steps, tokens = written(minigpt4, monkeypatch, "Yes, there is. ###")
    assert answer[:3] == ("Yes, there is.", True, tokens)
    assert steps == tokens

    longer, steps, _ = written(minigpt4, monkeypatch, "Yes, there is. ###Human: why")
    assert longer == answer
    assert steps == tokens


def test_minigpt4s_beams_go_on_after_three_number_signs(
    minigpt4: models.VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are ranked by what follows; the answer is cut all the same."""
    answer, steps, tokens = written(minigpt4, monkeypatch, "Yes. ###Human: why", beams=2)

    assert answer[:2] == ("Yes.", True)
    assert steps > tokens > len(minigpt4.tokenizer.encode("Yes. ###"))


def test_a_stopped_row_does_not_stop_the_others(
    minigpt4: models.VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = minigpt4.tokenizer.encode("Yes. ###")
    on = minigpt4.tokenizer.encode("No, there is none here.")[: len(stop) + 2]

    class Two(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            at = input_ids.shape[1]
            forced = torch.full_like(scores, -1e4)
            forced[0, (stop * 2)[at]] = 0.0
            forced[1, (on * 2)[at]] = 0.0
            return forced

    monkeypatch.setattr(minigpt4, "logits_processors", lambda: LogitsProcessorList([Two()]))
    answers = minigpt4.answer_batch(
        minigpt4.encode_images(pictures(2)), ["What?", "And?"], models.Decoding(len(on))
    )

    assert answers[0][:3] == ("Yes.", True, len(stop))
    assert answers[1][:3] == (minigpt4.tokenizer.decode(on).strip(), False, len(on))


def test_an_answer_begins_after_the_last_assistant(
    minigpt4: models.VLM, shikra: models.VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert written(minigpt4, monkeypatch, "No. Assistant: Yes.")[0].text == "Yes."
    assert written(shikra, monkeypatch, "No. ASSISTANT: Yes.")[0].text == "Yes."
    assert written(shikra, monkeypatch, "Yes ###")[0].text == "Yes ###"  # no stop text there


def test_unknown_and_added_tokens_are_no_text(shikra: models.VLM) -> None:
    ids = shikra.tokenizer.encode("Yes.")

    assert shikra._answer([0, *ids, 1, PIECES, PIECES + 2, 2]).text == "Yes."


@pytest.mark.parametrize("family", ["instructblip", "minigpt4"])
def test_pictures_are_squashed_and_not_cropped(request: pytest.FixtureRequest, family: str) -> None:
    vlm = request.getfixturevalue(family)
    wide = pictures(1)[0].resize((90, 30))
    wide.paste((255, 0, 0), (0, 0, 6, 30))  # at the edge, where a crop would lose it

    pixels = vlm.preprocess([wide])[0]

    assert pixels.shape == (3, 28, 28)
    assert pixels[0, :, 0].min() > 1.5
    assert pixels[2, :, 0].max() < -1


def test_shikras_own_protocol_pads_with_white(root: Path, shikra: models.VLM) -> None:
    official = models.load(
        "shikra", checkpoint=str(root / "shikra"), device="cpu", protocol="official"
    )
    wide = pictures(1)[0].resize((100, 40))

    pixels = official.preprocess([wide])[0]

    white = (1 - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor(
        [0.26862954, 0.26130258, 0.27577711]
    )
    torch.testing.assert_close(pixels[:, 1, 14], white)
    assert not torch.equal(shikra.preprocess([wide])[0], pixels)
