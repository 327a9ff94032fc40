"""Sums over a prefix and over what follows it are the sums over whole prompts."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import eah
from eah.context import sharing_prefix
from eah.method import column_sums
from eah.patch import handle_of
from eah.prefix import SharedPrefix
from eah.visibility import Visibility
from tests.eah.cases import WAYS, make_case, told
from tests.eah.tiny import CONFIG, SPAN, TARGET, tiny_llama

LENGTH = 7


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("padding", [(0, 0), (2, 0)])
def test_a_pass_over_whole_prompts_finds_their_sums(way: str, padding: tuple[int, int]) -> None:
    case = make_case(2, 4, 2, 12, padding=padding)
    count = partial(column_sums, scaling=case.scaling)
    visibility = told(case, way)
    whole = count(case.query, case.key, visibility)
    prefix = SharedPrefix(LENGTH)

    found = prefix.column_sums(0, case.query, visibility, lambda q, v: count(q, case.key, v))

    torch.testing.assert_close(found, whole)


@pytest.mark.parametrize("beams", [1, 3])
def test_what_follows_a_prefix_adds_up_to_whole_prompts(beams: int) -> None:
    case = make_case(2, 4, 2, 12)
    key = case.key.repeat_interleave(beams, dim=0)
    query = case.query.repeat_interleave(beams, dim=0)
    prefix = SharedPrefix(LENGTH)
    count = partial(column_sums, scaling=case.scaling)
    prefix.column_sums(0, case.query, Visibility(), lambda q, v: count(q, case.key, v))

    found = prefix.column_sums(
        0, query[:, :, LENGTH:], Visibility(LENGTH), lambda q, v: count(q, key, v)
    )

    torch.testing.assert_close(found, count(query, key, Visibility()))
    assert not torch.allclose(found.rows, count(query[:, :, LENGTH:], key, Visibility(LENGTH)).rows)


@torch.no_grad()
def test_a_model_goes_on_behind_a_prefix_as_it_runs_the_prompt() -> None:
    model = tiny_llama()
    ids = torch.randint(3, 60, (2, 30))
    start = SPAN[1] + 2

    with eah.enabled(model, CONFIG) as handle, eah.image_tokens(model, SPAN):
        output = model(ids, use_cache=True)
        expected = handle.report()
        whole_step = model(ids[:, :1], past_key_values=output.past_key_values).logits
        prefix = SharedPrefix(start)
        with sharing_prefix(model, prefix):
            cache = model(ids, use_cache=True).past_key_values
            assert list(prefix.sums) == [TARGET]
            cache.crop(start - ids.shape[1])
            rest = model(ids[:, start:], past_key_values=cache).logits
            assert handle.report() == expected
            step = model(ids[:, :1], past_key_values=cache).logits

    torch.testing.assert_close(rest, output.logits[:, start:])
    torch.testing.assert_close(step, whole_step)


def test_the_handle_of_a_model_is_found_again() -> None:
    model = tiny_llama()
    assert handle_of(model) is None

    with eah.enabled(model, CONFIG) as handle:
        assert handle_of(model) == handle
    assert handle_of(model) is None


def test_a_model_without_eah_takes_a_prefix_and_does_nothing_with_it() -> None:
    model, prefix = tiny_llama(), SharedPrefix(4)

    with sharing_prefix(model, prefix), torch.no_grad():
        model(torch.randint(3, 60, (1, 10)))

    assert not prefix.sums
