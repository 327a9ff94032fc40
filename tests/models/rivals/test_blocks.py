"""After a block the model is what it was, however the block ends; and blocks in blocks."""

from __future__ import annotations

import copy
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch

from models.decoding.base import DecodingMethod
from models.decoding.hgai import Hgai
from models.decoding.spin import Spin
from models.decoding.vaf import Vaf
from tests.models.rivals.toy import (
    DECO,
    METHODS,
    answers,
    make_llama,
    make_prompts,
    run_steps,
)

ALL: dict[str, DecodingMethod] = {**METHODS, "deco": DECO}


class Stop(Exception):
    """What a test raises in a forward pass."""


def logits(model: Any, method: DecodingMethod | None = None) -> torch.Tensor:
    """Return the logits of all prompts and answers, one below the other."""
    prompts = make_prompts()
    return torch.cat(run_steps(model, method, prompts, answers(prompts)))


def inside(model: Any) -> dict[str, Any]:
    """Return what blocks put into a model: configs and hooks of all modules."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs")
        found[name] = [id(vars(module).get("config")), *(dict(vars(module)[k]) for k in kinds)]
    return found


@contextmanager
def failing(model: Any, layer: int, fail: Any) -> Iterator[None]:
    """In a `with` block, let a layer fail after its attention."""
    hook = model.model.layers[layer].mlp.register_forward_hook(lambda *_: fail())
    try:
        yield
    finally:
        hook.remove()


def raise_stop() -> None:
    raise Stop


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ALL)
def test_the_model_is_what_it_was(name: str, kernel: str) -> None:
    model = make_llama(kernel)
    before, parts = logits(model), inside(model)

    assert not torch.equal(logits(model, ALL[name]), before)

    assert torch.equal(logits(model), before)
    assert inside(model) == parts


@pytest.mark.parametrize("fail", [raise_stop, press_ctrl_c])
@pytest.mark.parametrize("name", ALL)
def test_the_model_is_what_it_was_after_a_pass_that_fails(name: str, fail: Any) -> None:
    model = make_llama()
    before, parts = logits(model), inside(model)
    expected = logits(model, ALL[name])

    with failing(model, 2, fail), pytest.raises((Stop, KeyboardInterrupt)):
        logits(model, ALL[name])

    assert inside(model) == parts
    assert torch.equal(logits(model), before)
    assert torch.equal(logits(model, ALL[name]), expected)


@pytest.mark.parametrize("name", ALL)
def test_a_block_can_go_on_after_a_pass_that_fails(name: str) -> None:
    model, prompts = make_llama(), make_prompts()
    expected = logits(model, ALL[name])

    with ALL[name].applied(model, prompts.image_mask) as processors:
        with failing(model, 1, raise_stop), suppress(Stop):
            logits(model)
        found = torch.cat(run_steps(model, None, prompts, answers(prompts)))
        assert bool(processors) == (name == "deco")

    if name != "deco":  # whose processors `run_steps` was not given
        assert torch.equal(found, expected)


def test_blocks_in_different_layers_add_up_in_any_order() -> None:
    model, prompts = make_llama(), make_prompts()
    first, second = Vaf((0,), 1.6, 0.5), Hgai((2,), alpha=2.0)

    with first.applied(model, prompts.image_mask):
        both = logits(model, second)
        alone = logits(model)
    with second.applied(model, prompts.image_mask):
        other_way = logits(model, first)

    assert torch.equal(both, other_way)
    assert torch.equal(alone, logits(model, first))
    assert not torch.equal(both, alone)
    assert not torch.equal(both, logits(model, second))


def test_deco_works_in_a_block_of_another_method() -> None:
    model, prompts = make_llama(), make_prompts()

    with METHODS["spin"].applied(model, prompts.image_mask):
        both = logits(model, DECO)
        alone = logits(model)

    assert torch.equal(alone, logits(model, METHODS["spin"]))
    assert not torch.equal(both, logits(model, DECO))


@pytest.mark.parametrize("name", ALL)
def test_a_copy_that_is_made_in_a_block_is_the_plain_model(name: str) -> None:
    model, prompts = make_llama(), make_prompts()
    plain, changed = logits(model), logits(model, ALL[name])

    with ALL[name].applied(model, prompts.image_mask) as processors:
        twin = copy.deepcopy(model)
        assert torch.equal(logits(twin), plain)
        if not processors:
            assert torch.equal(logits(model), changed)

    assert torch.equal(logits(twin), plain)
    assert torch.equal(logits(model), plain)
    assert torch.equal(logits(twin, ALL[name]), changed)
    assert torch.equal(logits(twin), plain)
    assert torch.equal(logits(twin, Spin(kept=0.5)), logits(model, Spin(kept=0.5)))


def test_a_block_that_is_left_last_leaves_the_others_at_work() -> None:
    """Blocks of one thread that overlap in different layers, as generators may leave them."""
    model, prompts = make_llama(), make_prompts()
    first, second = Vaf((0,), 1.6, 0.5), Hgai((2,), alpha=2.0)
    plain = logits(model)

    with first.applied(model, prompts.image_mask):
        for _ in range(2):
            with second.applied(model, prompts.image_mask):
                pass
        assert torch.equal(logits(model), logits(copy.deepcopy(model), first))

    assert torch.equal(logits(model), plain)


def test_blocks_that_are_left_in_another_order_end_their_own_method_only() -> None:
    """As of two generators that are closed first in, first out."""
    model, prompts = make_llama(), make_prompts()
    first, second = Vaf((0,), 1.6, 0.5), Hgai((2,), alpha=2.0)
    plain, expected = logits(model), logits(model, second)
    outer, inner = (one.applied(model, prompts.image_mask) for one in (first, second))

    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    found = logits(model)
    inner.__exit__(None, None, None)

    assert torch.equal(found, expected)
    assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model, first), logits(make_llama(), first))


def test_a_block_that_another_thread_leaves_is_over_in_both() -> None:
    """As of a generator that a server's worker began."""
    model, prompts = make_llama(), make_prompts()
    method = Hgai((2,), alpha=2.0)
    plain, parts = logits(model), inside(model)
    begun, left = threading.Event(), threading.Event()
    found: list[torch.Tensor] = []
    block = method.applied(model, prompts.image_mask)

    def worker() -> None:
        block.__enter__()
        found.append(logits(model))
        begun.set()
        left.wait()
        found.append(logits(model))

    thread = threading.Thread(target=worker)
    thread.start()
    begun.wait()
    assert torch.equal(logits(model), plain)
    block.__exit__(None, None, None)
    left.set()
    thread.join()

    assert torch.equal(found[0], logits(model, method))
    assert torch.equal(found[1], plain)
    assert inside(model) == parts
