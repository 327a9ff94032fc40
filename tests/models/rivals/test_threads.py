"""Threads that answer on one model at the same time, each under its own method or none."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import models
from models.base import VLM
from models.decoding.base import DecodingMethod
from models.decoding.deco import Deco
from models.decoding.var import Var
from models.generation import Answer
from models.prefix_cache import PrefixCache
from tests.models.rivals.test_answers import METHODS, ask
from tests.models.rivals.toy import METHODS as SETTINGS
from tests.models.rivals.toy import answers, make_llama, make_prompts, run_steps
from tests.models.toys import make_folder

ROUNDS = 5
ARMS: dict[str, DecodingMethod] = {
    **METHODS,
    "other var": Var((3, 50), tau=1.2, rho=1.0, summ=0.0, p=0.2, start_layer=1),
    "other deco": Deco((0, 1), alpha=3.0),
}
PAIRS = [
    ("hgai", "var"),
    ("vaf", "spin"),
    ("adhh", "deco"),
    ("var", "other var"),
    ("deco", "other deco"),
]


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    folder: Path = make_folder("llava-1.5", tmp_path_factory.mktemp("toy") / "model")
    return models.load("llava-1.5", checkpoint=str(folder), device="cpu")


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    """Let threads take turns after every few instructions."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.parametrize("prefix", [False, True], ids=["whole", "prefix reuse"])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_each_thread_answers_as_alone(vlm: VLM, pair: tuple[str, str], prefix: bool) -> None:
    arms = [ARMS[pair[0]], ARMS[pair[1]], None]
    alone = [ask(vlm, method, PrefixCache() if prefix else None) for method in arms]
    assert len({str(said) for said in alone}) == len(arms)
    start = threading.Barrier(len(arms))

    def answer(method: DecodingMethod | None) -> list[list[Answer]]:
        start.wait()
        return [ask(vlm, method, PrefixCache() if prefix else None) for _ in range(ROUNDS)]

    with ThreadPoolExecutor(len(arms)) as pool:
        found = list(pool.map(answer, arms))

    for said, expected in zip(found, alone, strict=True):
        assert said == [expected] * ROUNDS
    assert ask(vlm, None) == ask(vlm, None, None), "and the model is what it was"


def test_logits_are_those_of_each_thread_alone_bitwise() -> None:
    model, prompts = make_llama(), make_prompts()
    names = ("hgai", "vaf", "var", "spin released", None)
    arms = [SETTINGS[name] if name else None for name in names]
    alone = [torch.cat(run_steps(model, method, prompts, answers(prompts))) for method in arms]
    start = threading.Barrier(len(arms))

    def run(method: DecodingMethod | None) -> list[torch.Tensor]:
        start.wait()
        return [torch.cat(run_steps(model, method, prompts, answers(prompts))) for _ in range(10)]

    with ThreadPoolExecutor(len(arms)) as pool:
        found = list(pool.map(run, arms))

    for logits, expected in zip(found, alone, strict=True):
        assert all(torch.equal(one, expected) for one in logits)


def test_a_block_does_not_reach_threads_that_are_started_in_it() -> None:
    model, prompts = make_llama(), make_prompts()
    plain = torch.cat(run_steps(model, None, prompts, answers(prompts)))

    with (
        SETTINGS["vaf"].applied(model, prompts.image_mask),
        ThreadPoolExecutor(1) as pool,
    ):
        found = pool.submit(run_steps, model, None, prompts, answers(prompts)).result()

    assert torch.equal(torch.cat(found), plain)
