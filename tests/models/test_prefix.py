"""Questions about one picture that share its prefix answer as if each were run whole."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch

import eah
import models
from models.base import VLM
from models.decoding.base import DecodingMethod
from models.decoding.dola import Dola
from models.decoding.opera import Opera
from models.decoding.pai import Pai
from models.decoding.vcd import Vcd
from models.prefix_store import PrefixStore, Sharing
from tests.models.toys import FAMILIES, QUESTIONS, make_folder, pictures

SHARING_FAMILIES = [family for family in FAMILIES if family != "instructblip"]
PICTURES = [0, 0, 0, 1, 0, 1]
LAYERS: dict[str, tuple[int, ...] | None] = {"baseline": None, "eah": (1,), "two layers": (0, 2)}


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VLM]:
    root = tmp_path_factory.mktemp("toys")
    folders = {family: make_folder(family, root / family) for family in FAMILIES}
    return {
        family: models.load(family, checkpoint=str(folder), device="cpu")
        for family, folder in folders.items()
    }


def enabled(vlm: VLM, layers: tuple[int, ...] | None) -> AbstractContextManager[Any]:
    if layers is None:
        return nullcontext()
    return eah.enabled(vlm.model, eah.EAHConfig.preset("scale-free", layers=layers))


def inputs(vlm: VLM) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features of each question's picture, and of a noised one."""
    pixels = vlm.preprocess(pictures(2))
    return vlm.encode_pixels(pixels)[PICTURES], vlm.encode_pixels(pixels + 0.1)[PICTURES]


@pytest.mark.parametrize("arm", LAYERS)
@pytest.mark.parametrize("family", SHARING_FAMILIES)
@pytest.mark.parametrize(
    ("method", "beams"), [(None, 1), (None, 3), (Dola(), 1), (Vcd(), 1)], ids=str
)
def test_answers_and_heads_are_those_of_whole_prompts(
    wrapped: dict[str, VLM], family: str, arm: str, method: DecodingMethod | None, beams: int
) -> None:
    vlm, store = wrapped[family], PrefixStore()
    features, noised = inputs(vlm)
    decoding = models.Decoding(max_new_tokens=10, num_beams=beams)

    with enabled(vlm, LAYERS[arm]) as handle:
        whole = vlm.answer_batch(features, QUESTIONS, decoding, method, noised)
        expected = handle and handle.report()
        for _ in range(2):  # prefixes computed, and found in the store
            shared = vlm.answer_batch(
                features, QUESTIONS, decoding, method, noised, Sharing(PICTURES, store)
            )
            assert shared == whole
            assert (handle and handle.report()) == expected

    assert len(set(whole)) == len(QUESTIONS)
    branches = 2 if isinstance(method, Vcd) else 1
    assert store.prompts == 2 * branches * len(QUESTIONS)
    if arm == "baseline":
        assert store.prefills == 2 * branches
    else:
        heads = set(zip(PICTURES, *(row.head[::beams] for row in expected), strict=False))
        assert store.prefills >= len(heads) > 2, "questions about a picture chose different heads"


@pytest.mark.parametrize("arm", ["baseline", "eah"])
def test_sampled_answers_are_those_of_whole_prompts(wrapped: dict[str, VLM], arm: str) -> None:
    vlm = wrapped["llava-1.5"]
    features, _ = inputs(vlm)
    decoding = models.Decoding(max_new_tokens=10, do_sample=True)

    with enabled(vlm, LAYERS[arm]):
        torch.manual_seed(3)
        whole = vlm.answer_batch(features, QUESTIONS, decoding)
        torch.manual_seed(3)
        shared = vlm.answer_batch(
            features, QUESTIONS, decoding, sharing=Sharing(PICTURES, PrefixStore())
        )

    assert shared == whole


def test_a_picture_that_was_not_kept_is_computed_again(wrapped: dict[str, VLM]) -> None:
    vlm, store = wrapped["shikra"], PrefixStore()
    features, _ = inputs(vlm)
    decoding = models.Decoding(max_new_tokens=2)

    vlm.answer_batch(features, QUESTIONS, decoding, sharing=Sharing(PICTURES, store))
    store.keep([1])
    vlm.answer_batch(features, QUESTIONS, decoding, sharing=Sharing(PICTURES, store))

    assert store.prefills == 2 + 1


@pytest.mark.parametrize("method", [Opera(), Pai()], ids=str)
def test_methods_that_run_prompts_their_own_way_run_them_whole(
    wrapped: dict[str, VLM], method: DecodingMethod
) -> None:
    assert not wrapped["llava-1.5"].shares_prefix(method)


def test_image_tokens_that_depend_on_the_question_are_never_shared(
    wrapped: dict[str, VLM],
) -> None:
    vlm, store = wrapped["instructblip"], PrefixStore()
    features, _ = inputs(vlm)
    decoding = models.Decoding(max_new_tokens=4)

    shared = vlm.answer_batch(features, QUESTIONS, decoding, sharing=Sharing(PICTURES, store))

    assert shared == vlm.answer_batch(features, QUESTIONS, decoding)
    assert (store.prompts, store.prefills) == (0, 0)


def test_settings_that_look_at_the_place_in_the_batch_share_nothing(
    wrapped: dict[str, VLM],
) -> None:
    vlm = wrapped["llava-1.5"]
    config = eah.EAHConfig.preset("released-code", layers=(1,), image_span=(3, 7))

    with eah.enabled(vlm.model, config):
        assert not vlm.shares_prefix()


def test_a_span_of_the_settings_counts_more_than_the_wrappers(wrapped: dict[str, VLM]) -> None:
    vlm = wrapped["llava-1.5"]
    features, _ = inputs(vlm)
    config = eah.EAHConfig.preset("scale-free", image_span=(3, 6))
    decoding = models.Decoding(max_new_tokens=2)

    with eah.enabled(vlm.model, config) as handle:
        for method in (None, Dola()):
            vlm.answer_batch(features[:1], QUESTIONS[:1], decoding, method)
            assert handle.report()[0].image_tokens == (3,)
