"""What `eah.observe` reports beside counts: other settings, sinks by token, receivers."""

from __future__ import annotations

import gc
import weakref
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

import eah
from eah import method
from eah.observation import LayerObservation
from eah.prompt import Prompt
from eah.state import Findings, Pass, Session, last_findings
from tests.eah import tiny
from tests.eah.tiny import CONFIG, IMAGE_TOKENS, SPAN, logits

PAPER = eah.EAHConfig(threshold=0.05)
CONFIGS = (
    PAPER,
    eah.EAHConfig(threshold=0.02),
    eah.EAHConfig.preset("scale-free", threshold=1.1),
    eah.EAHConfig.preset("scale-free", receivers=2),
    eah.EAHConfig.preset("released-code", image_span=SPAN, threshold=0.1),
    eah.EAHConfig(head=2),
)


def maps_of(model: Any, prompt: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return model(**prompt, output_attentions=True).attentions


def same(one: LayerObservation, other: LayerObservation) -> bool:
    """Tell whether two reports of a layer are the same."""

    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, tuple) and a and isinstance(a[0], torch.Tensor):
            return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        return bool(a == b)

    return all(equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


@pytest.mark.parametrize("config", CONFIGS)
def test_a_report_under_other_settings_is_that_of_an_observer_with_them(
    config: eah.EAHConfig,
) -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt(2)

    with eah.observe(model, config=PAPER) as one, eah.observe(model, config=config) as other:
        logits(model, prompt)
    asked, own, before = one.report(config), other.report(), one.report()

    assert all(map(same, asked, own))
    assert all(map(same, before, one.report(PAPER)))
    assert config == PAPER or not all(map(same, asked, before))


@pytest.mark.parametrize("config", CONFIGS)
def test_sinks_by_token_are_those_that_are_counted(config: eah.EAHConfig) -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt(2)
    maps = maps_of(tiny.tiny_llava("eager"), prompt)
    start, stop = SPAN

    with eah.observe(model, config=config) as seen:
        logits(model, prompt)

    for report in seen.report():
        for b in range(2):
            assert report.is_sink[b].sum(-1).tolist() == list(report.sinks[b])
            for h in range(4):
                weights = maps[report.layer][b, h]
                for y in range(start, stop):
                    received = weights[y + 1 :, y]
                    bound = config.threshold
                    if config.threshold_unit == "uniform":
                        bound *= sum(1 / (x + 1) for x in range(y + 1, 24)) / len(received)
                    rows = len(received)
                    if config.rule == "released_code":
                        rows = stop - (y - start)
                    is_sink = bool(received.sum() / rows > bound)
                    assert bool(report.is_sink[b][h, y - start]) == is_sink


def test_uniform_means_are_those_of_even_attention() -> None:
    model = tiny.tiny_llava()

    with eah.observe(model, layers=(0,)) as seen:
        logits(model, tiny.image_prompt())

    even = [sum(1 / (row + 1) for row in range(y + 1, 24)) / (23 - y) for y in range(*SPAN)]
    torch.testing.assert_close(seen.report()[0].uniform_means[0], torch.tensor(even))


@pytest.mark.parametrize("receivers", ["all", 2])
def test_shared_values_are_those_that_attention_has_under_eah(receivers: Any) -> None:
    config = eah.EAHConfig.preset("scale-free", layers=(1,), receivers=receivers)
    model, prompt = tiny.tiny_llava("eager"), tiny.image_prompt(2)

    with eah.observe(model, config=config) as seen:
        logits(model, prompt)
    observed = seen.report()[1]
    own = maps_of(model, prompt)[1]
    chosen = (observed.heads or {})["config"]

    for b in range(2):
        fewest = sorted(range(4), key=lambda h: (observed.sinks[b][h], h))
        assert observed.receivers[b] == tuple(sorted(fewest[: 4 if receivers == "all" else 2]))
        after = observed.shared(observed.means[b], b)
        for h in range(4):
            source = chosen[b] if h in observed.receivers[b] else h
            weights = own[b, source]
            means = [weights[y + 1 :, y].mean().item() for y in range(*SPAN)]
            torch.testing.assert_close(after[h], torch.tensor(means))
            shared = observed.shared(observed.is_sink[b], b)[h]
            assert torch.equal(shared, observed.is_sink[b][source])
    assert not torch.equal(observed.shared(observed.means[0]), observed.means[0])


def test_without_a_choice_nothing_is_shared() -> None:
    model = tiny.tiny_llava()

    with eah.observe(model, config=tiny.NO_SINKS) as seen:
        logits(model, tiny.image_prompt())
    (row,) = seen.report()[1].receivers

    assert row == ()
    means = seen.report()[1].means[0]
    assert torch.equal(seen.report()[1].shared(means), means)


def counts_of(monkeypatch: pytest.MonkeyPatch, model: Any, **settings: Any) -> int:
    """Return how often columns are summed in a pass of one observed layer."""
    counted = []
    plain = method.column_sums

    def count(*args: Any, **kwargs: Any) -> Any:
        counted.append(kwargs["rounding"])
        return plain(*args, **kwargs)

    prompt = tiny.image_prompt()
    prompt["pixel_values"] = prompt["pixel_values"].to(model.dtype)
    with (
        monkeypatch.context() as patch,
        eah.observe(model, layers=(1,), **settings) as seen,
    ):
        patch.setattr(method, "column_sums", count)
        logits(model, prompt)
    assert seen.report()[0].image_tokens == (IMAGE_TOKENS,)
    return len(counted)


def test_half_precision_is_counted_twice_for_the_released_rule_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half, whole = tiny.tiny_llava().to(torch.bfloat16), tiny.tiny_llava()
    released = eah.EAHConfig.preset("released-code", image_span=SPAN)

    assert counts_of(monkeypatch, half) == 2
    assert counts_of(monkeypatch, half, rules=("paper", "scale_free")) == 1
    assert counts_of(monkeypatch, half, rules=()) == 1
    assert counts_of(monkeypatch, half, rules=(), config=released) == 2
    assert counts_of(monkeypatch, whole) == 1


def test_the_released_rule_has_its_own_sinks_by_token_in_half_precision() -> None:
    model = tiny.tiny_llava().to(torch.bfloat16)
    released = eah.EAHConfig.preset("released-code", image_span=SPAN)
    with eah.observe(model, config=released, rules=()) as seen:
        logits(model, tiny.image_prompt())

    # Rounding moves few tokens over a threshold.
    for step in range(200, 1000):
        for report in seen.report(replace(released, threshold=0.0001 * step)):
            assert tuple(report.is_sink[0].sum(-1).tolist()) == report.sinks[0]


def test_rules_that_are_left_out_are_not_reported() -> None:
    model = tiny.tiny_llava()

    with eah.observe(model, rules=("scale_free",)) as some, eah.observe(model) as every:
        logits(model, tiny.image_prompt())

    for few, whole in zip(some.report(), every.report(), strict=True):
        assert few.heads is not None
        assert whole.heads is not None
        assert list(few.heads) == ["scale_free", "config"]
        assert few.heads.items() <= whole.heads.items()


def test_a_rule_that_was_not_counted_is_refused() -> None:
    model = tiny.tiny_llava()
    released = eah.EAHConfig.preset("released-code", image_span=SPAN)

    with eah.observe(model, rules=("paper",)) as seen:
        logits(model, tiny.image_prompt())
        with pytest.raises(eah.EAHConfigError, match="not counted in this pass: name it among"):
            seen.report(released)
    with (
        pytest.raises(eah.EAHConfigError, match="did you mean 'paper'"),
        eah.observe(model, rules=("papers",)),
    ):
        pass


def test_sums_are_moved_to_the_cpu_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.tiny_llava()
    with eah.observe(model, config=CONFIG) as seen:
        logits(model, tiny.image_prompt())
    moved: list[torch.Tensor] = []
    kept: list[torch.Tensor] = []

    def move(self: torch.Tensor) -> torch.Tensor:
        if any(self is tensor for tensor in kept):
            return self
        moved.append(self)
        kept.append(self.clone())
        return kept[-1]

    monkeypatch.setattr(torch.Tensor, "cpu", move)
    first, number = seen.report(), len(moved)
    again = seen.report(PAPER)

    assert number == 3 * 4  # attention, uniform, rows and image of each layer
    assert len(moved) == number
    assert [r.image_attention for r in first] == [r.image_attention for r in again]


def test_a_rule_of_ones_own_has_no_sinks_by_token() -> None:
    def first(columns: Any, image: torch.Tensor) -> Any:
        counts = torch.ones(columns.attention.shape[:2], dtype=torch.long)
        return eah.method.Choice(torch.zeros(len(image), dtype=torch.long), counts)

    model = tiny.tiny_llava()
    with eah.observe(model, config=eah.EAHConfig(rule=first)) as seen:
        logits(model, tiny.image_prompt())
    report = seen.report()[0]

    assert report.is_sink == ()
    assert report.sinks == ((1, 1, 1, 1),)
    assert report.receivers == ((0, 1, 2, 3),)


def test_layers_share_the_image_columns_of_their_pass() -> None:
    image = torch.tensor([[False, True, True, False]])
    prompt, cpu = Prompt(4, 0, image), torch.device("cpu")
    session = Session(None, {})
    under_way = Pass(session, None, None, None, prompt, None, Findings(1, None))

    first = under_way.image_columns(4, cpu)
    wider = under_way.image_columns(6, cpu)  # a static cache has keys behind the prompt's

    assert torch.equal(first, image)
    assert wider.tolist() == [[False, True, True, False, False, False]]
    assert under_way.image_columns(4, cpu) is first


def test_what_an_observer_saw_goes_with_it() -> None:
    model, prompt = tiny.tiny_llava(), tiny.image_prompt(2)
    with eah.observe(model) as seen:
        logits(model, prompt)
    kept = weakref.ref(last_findings(seen._key))

    gc.collect()
    assert seen.report()
    del seen
    gc.collect()

    assert kept() is None
