"""Threads, replicas and tasks that use one patched model at a time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from transformers import PreTrainedModel, TextIteratorStreamer

import eah
from tests.eah import tiny
from tests.eah.tiny import CONFIG, SPAN, logits

THREADS, PREFILLS, PROMPTS = 4, 150, 12


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def run_threads(work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_thread(work: Callable[[], object]) -> object:
    """Return what a function returns or raises in a thread of its own."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(work())
        except eah.EAHError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def spans() -> list[tuple[int, int]]:
    return [(2 + number % 4, 10 + number % 7) for number in range(PROMPTS)]


@pytest.mark.parametrize("kernel", tiny.KERNELS)
def test_every_thread_gets_the_output_of_a_single_one(kernel: str) -> None:
    model = tiny.tiny_llama(kernel)
    prompts = [tiny.text_prompt() for _ in range(PROMPTS)]
    plain = logits(model, prompts[0])
    faults: list[object] = []

    with eah.enabled(model, CONFIG) as handle:

        def ask(number: int) -> tuple[torch.Tensor, object]:
            with eah.image_tokens(model, spans()[number]):
                return logits(model, prompts[number]), handle.report()

        expected = [ask(number) for number in range(PROMPTS)]

        def work(thread: int) -> None:
            for turn in range(PREFILLS):
                number = (7 * turn + thread) % PROMPTS
                try:
                    output, report = ask(number)
                except RuntimeError as error:
                    faults.append(error)
                    continue
                if not torch.equal(output, expected[number][0]) or report != expected[number][1]:
                    faults.append(number)

        run_threads(work)
        assert faults == []
        assert torch.equal(ask(0)[0], expected[0][0])
    assert torch.equal(logits(model, prompts[0]), plain)


def test_every_thread_observes_its_own_prompts() -> None:
    model = tiny.tiny_llava()
    prompts = [tiny.image_prompt() for _ in range(PROMPTS)]
    plain = [logits(model, prompt) for prompt in prompts]
    faults: list[object] = []

    with eah.observe(model) as seen:

        def ask(number: int) -> list[tuple[object, ...]]:
            if not torch.equal(logits(model, prompts[number]), plain[number]):
                faults.append(number)
            return [(layer.sinks, layer.heads, layer.image_attention) for layer in seen.report()]

        expected = [ask(number) for number in range(PROMPTS)]

        def work(thread: int) -> None:
            for turn in range(PREFILLS):
                number = (5 * turn + thread) % PROMPTS
                if ask(number) != expected[number]:
                    faults.append(number)

        run_threads(work)

    assert faults == []
    assert len({str(found) for found in expected}) == PROMPTS


def test_image_tokens_hold_for_the_thread_that_enters_the_block() -> None:
    model, prompt = tiny.tiny_llama(), tiny.text_prompt()
    plain = logits(model, prompt)

    def ask_inside() -> torch.Tensor:
        with eah.image_tokens(model, SPAN):
            return logits(model, prompt)

    with eah.enabled(model, CONFIG):
        expected = ask_inside()
        with eah.image_tokens(model, (2, 5)):
            refused = in_thread(lambda: logits(model, prompt))
            inside = in_thread(ask_inside)
        outside = in_thread(lambda: logits(model, prompt))

    assert isinstance(refused, eah.EAHStateError)
    assert "active in another thread" in str(refused)
    assert isinstance(inside, torch.Tensor)
    assert torch.equal(inside, expected)
    assert isinstance(outside, torch.Tensor)
    assert torch.equal(outside, plain)


def test_placeholders_are_no_substitute_for_a_block_of_another_thread() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()

    with eah.enabled(model, CONFIG), eah.image_tokens(model, (2, 5)):
        refused = in_thread(lambda: logits(model, prompt))

    assert isinstance(refused, eah.EAHStateError)


class Words:
    """A tokenizer as far as a streamer needs one."""

    def decode(self, ids: list[int], **_: object) -> str:
        return " ".join(map(str, ids)) + " "


def test_a_streamer_gets_the_tokens_of_a_call_in_the_same_thread() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()

    with eah.enabled(model, CONFIG):
        expected = tiny.tokens(model, prompt)[0].tolist()
        streamer = TextIteratorStreamer(Words(), skip_prompt=True)
        thread = threading.Thread(target=lambda: tiny.tokens(model, prompt, streamer=streamer))
        thread.start()
        streamed = [int(token) for token in "".join(streamer).split()]
        thread.join()

    assert streamed == expected


def test_a_report_belongs_to_its_thread() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()

    with eah.enabled(model, CONFIG) as handle:
        other = in_thread(lambda: (logits(model, prompt), handle.report())[1])
        assert handle.report() == []
        logits(model, prompt)

        assert handle.report() == other


def replica_of(model: torch.nn.Module) -> torch.nn.Module:
    """Return what `DataParallel` makes of a model for another device."""
    twin = model._replicate_for_data_parallel()
    for name, child in model._modules.items():
        twin._modules[name] = None if child is None else replica_of(child)
        setattr(twin, name, twin._modules[name])
    for name, weight in model._parameters.items():
        setattr(twin, name, weight)
    return twin


def test_replicas_of_data_parallel_are_as_the_model_itself() -> None:
    model = tiny.tiny_llama()
    config = eah.EAHConfig.preset("scale-free", layers=(1,), image_span=SPAN)
    prompts = [tiny.text_prompt() for _ in range(THREADS)]
    found: dict[int, torch.Tensor] = {}

    with eah.enabled(model, config):
        expected = [logits(model, prompt) for prompt in prompts]
        replicas: list[PreTrainedModel] = [replica_of(model) for _ in prompts]

        def work(number: int) -> None:
            for _ in range(10):
                found[number] = logits(replicas[number], prompts[number])

        run_threads(work)

    for number, output in enumerate(expected):
        assert torch.equal(found[number], output)


def test_threads_may_observe_one_model_while_others_run_it() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt()
    plain = logits(model, prompt)
    faults: list[object] = []

    def work(number: int) -> None:
        for _ in range(25):
            try:
                if number % 2:
                    with eah.observe(model, layers=(number - 1,)) as seen:
                        output = logits(model, prompt)
                    if len(seen.report()) != 1 or seen.report()[0].skipped is not None:
                        faults.append(seen.report())
                else:
                    output = logits(model, prompt)
                if not torch.equal(output, plain):
                    faults.append(number)
            except (RuntimeError, AttributeError, KeyError) as error:
                faults.append(error)

    run_threads(work)

    assert faults == []
    assert tiny.attention(model).config._attn_implementation == "sdpa"
    assert not model._forward_hooks
    assert "generate" not in model.__dict__


def test_a_block_of_image_tokens_may_be_left_by_another_thread() -> None:
    model = tiny.tiny_llama("sdpa")
    with eah.enabled(model, CONFIG) as handle:
        block = eah.image_tokens(model, (2, 5))
        thread = threading.Thread(target=block.__enter__)
        thread.start()
        thread.join()
        block.__exit__(None, None, None)

        with eah.image_tokens(model, (1, 4)):
            model(inputs_embeds=torch.randn(1, 9, model.config.hidden_size))
        assert handle.report()[0].image_tokens == (3,)
