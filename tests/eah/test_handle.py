"""What the handle of an enabled model tells."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention

import eah
from tests.eah import tiny
from tests.eah.tiny import CONFIG, IMAGE_TOKENS, SPAN, TARGET, image_prompt, logits


def test_before_the_first_forward_there_is_nothing_to_report() -> None:
    handle = eah.enable(tiny.tiny_llava(), CONFIG)

    assert handle.report() == []
    assert handle.choices == {}


def test_the_handle_names_model_layers_and_settings() -> None:
    model = tiny.tiny_llava()

    handle = eah.enable(model, CONFIG)

    assert (handle.model, handle.layers, handle.config) == (model, (TARGET,), CONFIG)


def test_choices_are_tensors_and_the_report_says_the_same_in_numbers() -> None:
    model = tiny.tiny_llava()

    with eah.enabled(model, CONFIG) as handle:
        logits(model, image_prompt(3))

    choice, (report,) = handle.choices[TARGET], handle.report()
    assert list(handle.choices) == [TARGET]
    assert choice.head.shape == (3,)
    assert choice.counts.shape == (3, 4)
    assert choice.head.dtype == choice.counts.dtype == torch.int64
    assert choice.receivers is None
    assert report == eah.LayerReport(
        layer=TARGET,
        head=tuple(choice.head.tolist()),
        counts=tuple(map(tuple, choice.counts.tolist())),
        image_tokens=(IMAGE_TOKENS,) * 3,
        saturated=(False,) * 3,
        skipped=None,
    )
    assert all(
        counts[head] == max(counts) for head, counts in zip(report.head, report.counts, strict=True)
    )


def test_the_report_names_no_head_where_none_was_found() -> None:
    model = tiny.tiny_llava()

    with eah.enabled(model, tiny.NO_SINKS) as handle:
        logits(model, image_prompt())

    assert handle.choices[TARGET].head.tolist() == [-1]
    assert handle.report() == [
        eah.LayerReport(
            layer=TARGET,
            head=(None,),
            counts=((0, 0, 0, 0),),
            image_tokens=(IMAGE_TOKENS,),
            saturated=(False,),
            skipped="the rule chose no head: none has a vision sink",
        )
    ]


def test_the_report_says_that_a_density_was_missed() -> None:
    model = tiny.tiny_llava()
    config = eah.EAHConfig.preset("scale-free", layers=(TARGET,), min_density=1.0)

    with eah.enabled(model, config) as handle:
        logits(model, image_prompt())

    (report,) = handle.report()
    assert max(report.counts[0]) > 0
    assert report.head == (None,)
    assert report.skipped == (
        "the rule chose no head: none has a vision sink, or its share is below min_density=1.0"
    )


def test_the_report_outlives_decode_steps_and_disable() -> None:
    model = tiny.tiny_llava()
    handle = eah.enable(model, CONFIG)
    with torch.no_grad():
        cache = model(**image_prompt(), use_cache=True).past_key_values
        report, choices = handle.report(), handle.choices
        model(input_ids=torch.tensor([[5]]), past_key_values=cache)

    assert report[0].head[0] is not None
    assert handle.report() == report
    assert handle.choices == choices
    handle.disable()
    assert handle.report() == report


def test_after_a_text_prompt_the_report_says_that_nothing_was_done() -> None:
    model = tiny.tiny_llava()
    handle = eah.enable(model, eah.EAHConfig.preset("scale-free", layers=(0, TARGET)))
    logits(model, image_prompt())

    logits(model, tiny.text_prompt(2))

    assert handle.choices == {}
    assert handle.report() == [
        eah.LayerReport(
            layer=layer,
            head=(None, None),
            counts=((0,) * 4,) * 2,
            image_tokens=(0, 0),
            saturated=(False, False),
            skipped="the prompt has no image tokens",
        )
        for layer in (0, TARGET)
    ]


def test_each_thread_has_a_report_of_its_own() -> None:
    model = tiny.tiny_llava()
    handle = eah.enable(model, CONFIG)
    logits(model, image_prompt(2))
    report = handle.report()

    def other() -> tuple[list[eah.LayerReport], list[eah.LayerReport]]:
        before = handle.report()
        logits(model, image_prompt(1))
        return before, handle.report()

    with ThreadPoolExecutor(1) as pool:
        before, after = pool.submit(other).result()

    assert before == []
    assert len(after[0].head) == 1
    assert handle.report() == report


def test_the_report_is_of_the_last_image_prompt() -> None:
    model = tiny.tiny_llava()

    with eah.enabled(model, CONFIG) as handle:
        logits(model, image_prompt(2))
        logits(model, image_prompt(1))

    assert len(handle.report()[0].head) == 1


def test_choices_are_a_copy() -> None:
    model = tiny.tiny_llava()

    with eah.enabled(model, CONFIG) as handle:
        logits(model, image_prompt())
    handle.choices.clear()

    assert list(handle.choices) == [TARGET]


def flat_llava() -> torch.nn.Module:
    """Return a Llava whose target layer spreads its attention evenly in every head."""
    model = tiny.tiny_llava()
    torch.nn.init.zeros_(tiny.attention(model).q_proj.weight)
    return model


def test_the_papers_threshold_saturates_on_a_short_prompt() -> None:
    model = flat_llava()

    with eah.enabled(model, eah.EAHConfig.preset("paper", layers=(TARGET,))) as handle:
        logits(model, image_prompt(2))

    (report,) = handle.report()
    assert report.saturated == (True, True)
    assert report.counts == ((IMAGE_TOKENS,) * 4,) * 2
    assert report.head == (0, 0)


def test_the_scale_free_threshold_does_not_saturate_on_a_short_prompt() -> None:
    model = flat_llava()

    with eah.enabled(model, CONFIG) as handle:
        logits(model, image_prompt(2))

    (report,) = handle.report()
    assert report.saturated == (False, False)
    assert report.counts == ((0, 0, 0, 0),) * 2


def replace_target(model: torch.nn.Module, config: LlamaConfig) -> None:
    """Put a fresh attention module, as a quantiser might, where the patched one was."""
    for module in model.modules():
        if getattr(module, "self_attn", None) is tiny.attention(model):
            module.self_attn = LlamaAttention(config, TARGET).eval()
            return
    raise AssertionError("no layer holds the target attention")


def test_a_target_layer_that_was_not_reached_is_an_error() -> None:
    model, text = tiny.tiny_llava(), tiny.text_prompt()
    config = eah.EAHConfig.preset("scale-free", layers=(0, TARGET))
    eah.enable(model, config)
    logits(model, image_prompt())
    replace_target(model, model.config.text_config)

    with pytest.raises(eah.EAHStateError, match=r"attention of layers \[1\] did not run"):
        logits(model, image_prompt())
    logits(model, text)  # without an image there is nothing to miss


def test_a_bare_language_model_is_watched_too() -> None:
    model = tiny.tiny_llama()
    eah.enable(model, eah.EAHConfig.preset("scale-free", layers=(0, TARGET)))
    replace_target(model, model.config)

    with (
        eah.image_tokens(model, SPAN),
        pytest.raises(eah.EAHStateError, match=r"attention of layers \[1\] did not run"),
    ):
        logits(model, tiny.text_prompt())
