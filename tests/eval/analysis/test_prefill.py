"""Prompts are read as for an answer, with the image tokens of the prompts or those of a span."""

from __future__ import annotations

import pytest
import torch

import eah
import models
from eval.analysis.counting import counting_of
from eval.analysis.observing import observe_batch
from eval.analysis.picture import view_picture
from eval.analysis.prefill import prefill
from eval.files.answers import Item
from eval.run.plan import Prompt
from models.generation import Decoding
from tests.eval.analysis.small_models import HEADS, write_llava
from tests.models.toys import pictures

QUESTION = "Is there a cat in the image?"
SPAN = (36, 46)


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> models.VLM:
    folder = write_llava(tmp_path_factory.mktemp("llava"))
    return models.load("llava-1.5", checkpoint=str(folder), dtype="float32", device="cpu")


def test_what_is_seen_is_what_an_answer_sees(vlm: models.VLM) -> None:
    features = vlm.encode_images(pictures(1))
    with eah.observe(vlm, rules=()) as seen:
        vlm.answer_batch(features, [QUESTION], Decoding(max_new_tokens=2))
        answered = [layer.means[0] for layer in seen.report()]
        prefill(vlm, features, [QUESTION], None)
        read = [layer.means[0] for layer in seen.report()]

    assert all(torch.equal(one, other) for one, other in zip(answered, read, strict=True))


def test_a_span_of_the_settings_is_counted_as_the_release_does(vlm: models.VLM) -> None:
    """The authors' divisor of column y of [start, stop) is stop - (y - start)."""
    config = eah.EAHConfig.preset("released-code", layers=(1,), threshold=0.002, image_span=SPAN)
    (picture,) = pictures(1)
    features = {"a.jpg": vlm.encode_images([picture])[0]}
    prompt = Prompt(Item(1, "a.jpg", QUESTION), QUESTION)
    counting = counting_of(config, [0.01])
    with eah.observe(vlm, config=counting.configs[0], rules=()) as seen:
        (found,) = observe_batch(vlm, seen, features, [prompt], counting)
    view = view_picture(vlm, picture, "a.jpg", QUESTION, config, "toy")

    vlm.model.set_attn_implementation("eager")
    with torch.inference_mode():
        prompts = vlm.encode_prompts([features["a.jpg"]], [QUESTION])
        given = dict(prompts.inputs)
        maps = vlm.language_model(**given, output_attentions=True).attentions
    vlm.model.set_attn_implementation("sdpa")

    start, stop = SPAN
    assert found.image_tokens == stop - start == view.layers[0].before.shape[1]
    assert view.grid is None, "a span may hold other tokens"
    for layer, weights in zip(found.layers, maps, strict=True):
        for t, threshold in enumerate((0.002, 0.01)):
            for head in range(HEADS):
                columns = weights[0, head].clone().fill_diagonal_(0).sum(0)  # (K,)
                shares = [float(columns[y]) / (stop - (y - start)) for y in range(start, stop)]
                assert layer.sinks[t][head] == sum(share > threshold for share in shares)
    assert 0 < sum(sum(layer.sinks[1]) for layer in found.layers) < 10 * HEADS * len(found.layers)


def test_a_span_past_a_prompt_is_refused(vlm: models.VLM) -> None:
    features = vlm.encode_images(pictures(1))
    with (
        eah.observe(vlm, rules=()),
        pytest.raises(eah.EAHStateError, match=r"\[36, 611\) reaches past the \d+ tokens"),
    ):
        prefill(vlm, features, [QUESTION], (36, 611))
