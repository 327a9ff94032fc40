"""Answers of the wrappers under every method: batches, cached prefixes, beams, sampling, EAH."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache as remembered
from typing import Any

import pytest
import torch

import eah
import models
from models.base import VLM
from models.decoding.adhh import Adhh
from models.decoding.base import DecodingMethod
from models.decoding.deco import Deco
from models.decoding.hgai import Hgai
from models.decoding.spin import Spin
from models.decoding.vaf import Vaf
from models.decoding.var import Var
from models.decoding.yes_no import YesNoIds
from models.generation import Answer
from models.prefix_cache import PicturePrefixes, PrefixCache
from tests.models.toys import QUESTIONS, make_folder, pictures

FAMILIES = ("llava-1.5", "shikra", "minigpt4")
METHODS: dict[str, DecodingMethod] = {
    "hgai": Hgai((1, 2), alpha=1.0),
    "vaf": Vaf((1, 2), enhance=1.6, suppress=0.5),
    "vaf unsigned": Vaf((1, 2), enhance=1.6, suppress=0.5, signed=False),
    "spin": Spin(kept=0.5),
    "spin released": Spin(kept=0.5, released=True),
    "adhh": Adhh("1h0+1h2+2h1+2h3", threshold=0.2),
    "var": Var((7, 21), tau=1.5, rho=1.0, summ=0.0, p=0.0, start_layer=1),
    "deco": Deco((1, 2), alpha=2.0),
}
WHOLE: dict[str, DecodingMethod] = {
    "hgai non-causal": Hgai((1, 2), alpha=1.0, causal=False),
    "spin non-causal": Spin(kept=0.5, causal=False),
}
PICTURES = [0, 0, 0, 1, 0, 1]
IDS = YesNoIds({260: "yes", 261: "Yes"}, {270: "no"})


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VLM]:
    root = tmp_path_factory.mktemp("toys")
    return {
        family: models.load(
            family, checkpoint=str(make_folder(family, root / family)), device="cpu"
        )
        for family in FAMILIES
    }


def eah_beside(vlm: VLM, layers: tuple[int, ...] | None) -> AbstractContextManager[Any]:
    if layers is None:
        return nullcontext()
    return eah.enabled(vlm.model, eah.EAHConfig.preset("scale-free", layers=layers))


@remembered
def features_of(vlm: VLM) -> torch.Tensor:
    """Return the features of the two pictures, encoded once: some vision towers in transformers 5.0
    exchange their layers' `forward` meanwhile, which other threads would see.
    """
    found: torch.Tensor = vlm.encode_pixels(vlm.preprocess(pictures(2)))
    return found


def ask(
    vlm: VLM,
    method: DecodingMethod | None,
    cache: PrefixCache | None = None,
    rows: tuple[int, ...] = tuple(range(len(QUESTIONS))),
    **decoding: Any,
) -> list[Answer]:
    """Answer some of the questions, from the same seed."""
    features = features_of(vlm)
    prefixes = None if cache is None else PicturePrefixes([PICTURES[row] for row in rows], cache)
    torch.manual_seed(3)
    return vlm.answer_batch(
        features[[PICTURES[row] for row in rows]],
        [QUESTIONS[row] for row in rows],
        models.Decoding(max_new_tokens=8, **decoding),
        method,
        prefixes=prefixes,
        yes_no=IDS,
    )


def assert_same(found: list[Answer], expected: list[Answer]) -> None:
    assert [one._replace(p_yes=None) for one in found] == [
        one._replace(p_yes=None) for one in expected
    ]
    for one, other in zip(found, expected, strict=True):
        assert one.p_yes == pytest.approx(other.p_yes, abs=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("eah_layers", [None, (0,)], ids=["alone", "beside eah"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_batches_and_cached_prefixes_change_no_answer(
    wrapped: dict[str, VLM],
    family: str,
    name: str,
    eah_layers: tuple[int, ...] | None,
    beams: int,
) -> None:
    vlm, method, cache = wrapped[family], METHODS[name], PrefixCache()

    with eah_beside(vlm, eah_layers):
        together = ask(vlm, method, num_beams=beams)
        alone = [ask(vlm, method, rows=(row,), num_beams=beams)[0] for row in (0, 2)]
        behind = [ask(vlm, method, cache, num_beams=beams) for _ in range(2)]
        baseline = ask(vlm, None, num_beams=beams)

    assert_same(alone, [together[row] for row in (0, 2)])
    for said in behind:  # prefixes computed, and found
        assert_same(said, together)
    assert cache.reused > 0
    if name != "deco":  # it rules out tokens, so that p_yes may be of none
        assert all(one.p_yes is not None for one in together)
    assert [one.p_yes for one in together] != [one.p_yes for one in baseline]
    assert [one.text for one in together] != [one.text for one in baseline]


@pytest.mark.parametrize("name", METHODS)
def test_sampled_answers_are_those_of_whole_prompts(wrapped: dict[str, VLM], name: str) -> None:
    vlm, method = wrapped["llava-1.5"], METHODS[name]

    whole = ask(vlm, method, do_sample=True)

    assert_same(ask(vlm, method, PrefixCache(), do_sample=True), whole)
    assert whole != ask(vlm, method)
    assert whole != ask(vlm, None, do_sample=True)


@pytest.mark.parametrize("name", WHOLE)
def test_methods_that_change_the_prefix_are_given_none(wrapped: dict[str, VLM], name: str) -> None:
    vlm, method, cache = wrapped["shikra"], WHOLE[name], PrefixCache()

    together = ask(vlm, method, cache)

    assert_same([ask(vlm, method, rows=(row,))[0] for row in range(len(QUESTIONS))], together)
    assert together != ask(vlm, None)
    assert (cache.prompts, cache.prefills) == (0, 0)


def test_vars_sinks_are_kept_with_the_prefix(wrapped: dict[str, VLM]) -> None:
    vlm, cache = wrapped["llava-1.5"], PrefixCache()
    method = METHODS["var"]
    ask(vlm, method, cache)

    (first, second) = cache.kept
    assert set(first.marks) == {1, 2}
    for layer, marked in first.marks.items():
        assert marked.shape[1] == first.layers[layer][0].shape[2]
        assert 0 < int(marked.sum()) < marked.numel()
        assert not torch.equal(marked, second.marks[layer])


def test_var_refuses_a_prefix_whose_tokens_it_never_saw(wrapped: dict[str, VLM]) -> None:
    vlm, cache = wrapped["llava-1.5"], PrefixCache()
    ask(vlm, None, cache)

    with pytest.raises(models.decoding.base.MethodError, match="run the whole prompt inside"):
        ask(vlm, METHODS["var"], cache)


def test_vars_released_form_is_asked_one_question_at_a_time(wrapped: dict[str, VLM]) -> None:
    vlm, method = wrapped["llava-1.5"], Var((7, 21), tau=1.5, start_layer=1, released=True)

    with pytest.raises(models.decoding.base.MethodError, match="use batch size 1"):
        ask(vlm, method)
    assert not vlm.can_use_cached_prefix(method)
    assert ask(vlm, method, rows=(0,), num_beams=3)
