"""Batches: every prompt once, picture by picture, within a budget, cut where they do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import models
from eval.errors import EvaluationError
from eval.files.answers import Answer, Item
from eval.run import plan as batches
from eval.run.plan import (
    CPU_PROMPTS,
    MAX_PROMPTS,
    BatchSplitter,
    Prompt,
    batch_room,
    batches_by_count,
    batches_by_tokens,
    group_by_picture,
)

prompt_lists = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30)), max_size=90).map(
    lambda drawn: [
        Prompt(Item(number, f"{picture}.jpg", "?"), "x" * length)
        for number, (picture, length) in enumerate(drawn)
    ]
)


def lengths_of(prompts: Sequence[Prompt]) -> dict[str, int]:
    return {prompt.text: len(prompt.text) for prompt in prompts}


def places(made: Sequence[Sequence[Prompt]]) -> list[int]:
    return [int(prompt.item.id) for batch in made for prompt in batch]


@given(prompt_lists, st.integers(1, 9))
def test_batches_by_count_hold_every_prompt_once_picture_by_picture(
    prompts: list[Prompt], size: int
) -> None:
    made = batches_by_count(prompts, size)

    assert [len(batch) for batch in made[:-1]] == [size] * (len(made) - 1)
    assert all(made)
    first_seen = list(group_by_picture(prompts))
    assert places(made) == [
        int(prompt.item.id) for name in first_seen for prompt in prompts if prompt.image == name
    ]


@given(prompt_lists, st.integers(1, 400))
def test_batches_by_tokens_hold_every_prompt_once_within_the_budget(
    prompts: list[Prompt], budget: int
) -> None:
    made = batches_by_tokens(prompts, lengths_of(prompts), {"tokens": budget})

    assert sorted(places(made)) == list(range(len(prompts)))
    images = [prompt.image for batch in made for prompt in batch]
    assert len(set(images)) == sum(a != b for a, b in zip([None, *images], images, strict=False))
    for batch in made:
        padded = len(batch) * max(len(prompt.text) for prompt in batch)
        assert len(batch) == 1 or padded <= budget
        assert len(batch) <= MAX_PROMPTS
    for batch, following in pairwise(made):
        longest = max(len(prompt.text) for prompt in (*batch, following[0]))
        full = (len(batch) + 1) * longest > budget or len(batch) == MAX_PROMPTS
        assert full, "one more would have fitted"


@given(prompt_lists)
def test_the_longest_prompts_come_first(prompts: list[Prompt]) -> None:
    made = batches_by_tokens(prompts, lengths_of(prompts), {"tokens": 100})

    lengths = [len(prompt.text) for batch in made for prompt in batch]
    assert not lengths or lengths[0] == max(lengths)


def test_a_batch_is_never_more_than_a_kill_may_lose() -> None:
    prompts = [Prompt(Item(number, "a.jpg", "?"), "x") for number in range(200)]

    for room, sizes in (({}, [64, 64, 64, 8]), ({"prompts": 90}, [90, 90, 20])):
        made = batches_by_tokens(prompts, {"x": 1}, {"tokens": 10**9, **room})
        assert [len(batch) for batch in made] == sizes


def test_the_budget_follows_memory_and_beams(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = models.load("tiny-llava", device="cpu")
    memory = SimpleNamespace(available=10**9)
    monkeypatch.setattr(batches.psutil, "virtual_memory", lambda: memory)
    # Per token of 4 bytes: 2.5 copies of keys and values of 4 layers, and one layer's activations.
    per_token = 4 * (2.5 * 2 * 4 * 8 * 16 + 8 * 128 + 3 * 344)

    room = batch_room(vlm, models.Decoding(10))
    assert room == {"tokens": int(0.5 * 10**9 / per_token), "prompts": CPU_PROMPTS}
    beams = batch_room(vlm, models.Decoding(10, num_beams=5))
    assert beams["tokens"] == int(0.5 * 10**9 / (5 * per_token))
    # Where a model is on a GPU, only memory and what a kill loses bound a batch.
    monkeypatch.setattr(batches, "_free_bytes", lambda _: (10**9, batches.GPU_SHARE))
    room = batch_room(vlm, models.Decoding(10))
    assert room == {"tokens": int(0.8 * 10**9 / per_token), "prompts": MAX_PROMPTS}


PROMPTS = [Prompt(Item(number, "a.jpg", "?"), "x") for number in range(11)]


class Memory:
    """Answers prompts, if there are not too many of them."""

    def __init__(self, room: int, error: BaseException) -> None:
        self.room, self.error = room, error
        self.tried: list[tuple[int, int]] = []

    def answer(self, prompts: Sequence[Prompt], at: int) -> list[Answer]:
        self.tried.append((at, len(prompts)))
        if len(prompts) > self.room:
            raise self.error
        return [Answer(prompt.item, f"at {at}") for prompt in prompts]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()], ids=["cuda", "cpu"]
)
def test_a_batch_is_halved_until_it_fits_and_the_size_is_remembered(error: BaseException) -> None:
    freed: list[int] = []
    memory = Memory(3, error)
    parts = BatchSplitter(may_cut=True, free_memory=lambda: bool(freed.append(1)))

    answers = [one for rows in parts.ask(PROMPTS, memory.answer) for one in rows]

    assert [one.item for one in answers] == [prompt.item for prompt in PROMPTS]
    assert memory.tried == [(0, 11), (0, 5), *((at, 2) for at in range(0, 10, 2)), (10, 1)]
    assert len(freed) == 2
    memory.tried.clear()
    list(parts.ask(PROMPTS[:4], memory.answer))
    assert memory.tried == [(0, 2), (2, 2)]


def test_what_may_fit_now_is_tried_again_as_it_was() -> None:
    kept = [1]
    memory = Memory(3, MemoryError())
    parts = BatchSplitter(may_cut=False, free_memory=lambda: bool(kept and kept.pop()))

    def answer(prompts: Sequence[Prompt], at: int) -> list[Answer]:
        memory.room = 3 if kept else 11
        return memory.answer(prompts, at)

    (rows,) = parts.ask(PROMPTS, answer)

    assert len(rows) == 11
    assert memory.tried == [(0, 11), (0, 11)]
    assert parts.size is None


def test_each_part_is_given_before_the_next_is_tried() -> None:
    memory = Memory(3, MemoryError())
    parts = BatchSplitter(may_cut=True, free_memory=lambda: False)

    first = next(iter(parts.ask(PROMPTS, memory.answer)))

    assert len(first) == 2
    assert memory.tried[-1] == (0, 2)


@pytest.mark.parametrize(
    ("room", "may_cut", "message"),
    [
        (3, False, "11 prompts at a time do not fit into memory; pass a smaller --batch-size"),
        (0, True, "a single prompt does not fit into memory; choose a smaller --dtype"),
    ],
)
def test_too_little_memory_is_one_sentence(room: int, may_cut: bool, message: str) -> None:
    parts = BatchSplitter(may_cut=may_cut, free_memory=lambda: False)

    with pytest.raises(EvaluationError, match=message):
        list(parts.ask(PROMPTS, Memory(room, MemoryError()).answer))


def test_another_error_is_not_taken_for_too_little_memory() -> None:
    parts = BatchSplitter(may_cut=True, free_memory=lambda: False)

    def broken(*_: Any) -> list[Answer]:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        list(parts.ask(PROMPTS, broken))
