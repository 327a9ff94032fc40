"""What a layer's attention costs with EAH: operators, launches, host time, and no waiting."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import eah
from eah import prompt_reader
from eah.attention import eah_attention
from tests.eah import tiny
from tests.eah.tiny import CONFIG, SPAN, TARGET, logits

OPERATORS = 25  # of a layer's attention, outside of EAH's own and the model's kernel
LAUNCHES = 4
HOST_US = 250
OWN = ("eah::", "aten::_scaled_dot_product", "aten::scaled_dot_product")


class Counting(TorchDispatchMode):
    """Keeps the names of the operators that run."""

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count one."""
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def attention_calls(monkeypatch: pytest.MonkeyPatch, seen: list[str]) -> None:
    """Keep the operators of each call of our attention function."""

    def counted(*args: Any, **kwargs: Any) -> Any:
        with Counting() as counting:
            output = eah_attention(*args, **kwargs)
        seen.extend(counting.names)
        return output

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "eah", counted)


@pytest.mark.parametrize("preset", ["paper", "scale-free"])
def test_a_layers_attention_takes_few_operators(
    monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    model, ids = tiny.tiny_llama(), tiny.text_prompt()["input_ids"]
    names: list[str] = []
    attention_calls(monkeypatch, names)

    config = eah.EAHConfig.preset(preset)
    with eah.enabled(model, config), eah.image_tokens(model, SPAN), torch.no_grad():
        model(ids)

    assert {"eah::image_sums", "eah::choose_head"} <= set(names)
    assert len([name for name in names if not name.startswith(OWN)]) <= OPERATORS


def lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the CPU as a device that one waits for."""
    monkeypatch.setattr(prompt_reader, "HOST_DEVICES", ())


@pytest.mark.parametrize("kernel", tiny.KERNELS)
def test_text_that_nobody_looked_at_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    model, text = tiny.tiny_llava(kernel), tiny.text_prompt(2)
    plain = logits(model, text)
    lazily(monkeypatch)

    with eah.enabled(model, CONFIG) as handle, eah.observe(model, layers=(TARGET,)) as seen:
        found = logits(model, text)
        report, choices, observed = handle.report(), handle.choices, seen.report()

    assert torch.equal(found, plain)
    assert {one.skipped for one in report} == {"the prompt has no image tokens"}
    assert {one.skipped for one in observed} == {"the prompt has no image tokens"}
    assert choices == {}


@pytest.mark.parametrize("what", ["rule", "apply", "receivers"])
def test_functions_of_the_caller_never_see_text(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    model, text = tiny.tiny_llava("eager"), tiny.text_prompt(2)
    plain = model(**text, output_attentions=True)
    lazily(monkeypatch)
    called: list[Any] = []

    def see(*args: Any) -> Any:
        called.append(args)
        raise AssertionError("text")

    settings: dict[str, Any] = {what: 1 if what == "receivers" else see}
    config = eah.EAHConfig(layers=(TARGET,), **settings)
    with eah.enabled(model, config) as handle:
        found = model(**text, output_attentions=True)
        assert handle.report()[0].skipped == "the prompt has no image tokens"

    assert not called
    assert torch.equal(found.logits, plain.logits)
    assert all(map(torch.equal, found.attentions, plain.attentions))


def test_nobody_looks_for_images_before_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt(2)
    with eah.enabled(model, CONFIG) as handle:
        expected, report = logits(model, prompt), handle.report()
    lazily(monkeypatch)
    looked: list[Any] = []
    monkeypatch.setattr(eah.state.Findings, "skip_if_text", lambda self: looked.append(self))
    monkeypatch.setattr(eah.prompt.Prompt, "is_text", lambda self: looked.append(self))

    with eah.enabled(model, CONFIG) as handle:
        found = logits(model, prompt)
        assert not looked
        assert handle.report() == report

    assert torch.equal(found, expected)
    assert looked


def test_what_text_may_have_is_refused_for_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = tiny.tiny_llava("sdpa"), tiny.text_prompt()
    plain = logits(model, text)
    lazily(monkeypatch)

    with eah.enabled(model, CONFIG):
        attention = tiny.attention(model)
        hook = attention.register_forward_pre_hook(
            lambda _, args, kwargs: (args, {**kwargs, "indices": 1}), with_kwargs=True
        )
        assert torch.equal(logits(model, text), plain)
        with pytest.raises(eah.EAHError, match="indices"):
            logits(model, tiny.image_prompt())
        hook.remove()


@contextmanager
def layer_on_gpu() -> Iterator[dict[str, Callable[[], Any]]]:
    """Yield one plain attention call and one with EAH, of LLaVA-1.5's shape in bfloat16."""
    model = tiny.tiny_llama()
    query, key, value = (
        torch.randn(1, 640, 32, 128, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
        for _ in range(3)
    )
    image = torch.zeros(1, 640, dtype=torch.bool, device="cuda")
    image[:, 35:611] = True
    module: Any = tiny.attention(model).eval()
    with eah.enabled(model, CONFIG), torch.inference_mode():
        state = getattr(module, eah.state.STATE)
        prompt = eah.prompt.Prompt(640, 0, image, may_be_text=True)
        frame: Any = None
        found = eah.state.Findings(1, None)
        under_way = eah.state.Pass(state.session, model, frame, None, prompt, None, found)
        token = eah.state.current.set(under_way)
        try:
            given = module, query, key, value, None
            yield {
                "plain": lambda: eah.kernels.run_kernel(module, state.config, *given[1:]),
                "eah": lambda: eah_attention(*given),
            }
        finally:
            eah.state.current.reset(token)


@pytest.mark.gpu
def test_launches_and_host_time_of_one_layer() -> None:
    launches, host = {}, {}
    with layer_on_gpu() as calls:
        for name, call in calls.items():
            for _ in range(20):
                call()
            torch.cuda.synchronize()
            with torch.profiler.profile() as profile:
                call()
                torch.cuda.synchronize()
            launches[name] = sum(
                "Launch" in e.name and "Kernel" in e.name for e in profile.events()
            )
            times = []
            for _ in range(200):
                torch.cuda.synchronize()
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
            host[name] = 1e6 * statistics.median(times)

    assert launches["eah"] - launches["plain"] <= LAUNCHES, launches
    assert host["eah"] - host["plain"] <= HOST_US, host


@pytest.mark.gpu
def test_an_image_prefill_waits_no_more_than_a_plain_one() -> None:
    model, ids = tiny.tiny_llama().cuda(), tiny.text_prompt()["input_ids"].cuda()
    mask = torch.zeros(ids.shape, dtype=torch.bool, device="cuda")
    mask[:, slice(*SPAN)] = True

    def waits() -> int:
        model(ids)  # compiles, and fills caches
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                model(ids)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(one.message) for one in said)

    with torch.no_grad():
        plain = waits()
        with eah.enabled(model, CONFIG), eah.image_tokens(model, mask):
            assert waits() == plain
