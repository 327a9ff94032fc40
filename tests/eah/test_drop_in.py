"""The drop-in's parts that need no swapped transformers; tests/drop_in/ has those that do."""

from __future__ import annotations

import os

import pytest
import torch
from torch.nn import functional

import eah
from eah.drop_in.names import VERSION
from eah.drop_in.passes import PatchedModel
from eah.drop_in.sharing import HeadSharing
from eah.method import column_sums
from eah.prompt import Prompt
from eah.settings import (
    PRESETS,
    SPANS,
    DropInSettings,
    EAHConfig,
    settings_from_environment,
)
from eah.visibility import Visibility
from tests.eah import tiny

BATCH, HEADS, TOKENS, SIZE = 2, 4, 40, 8
SETTINGS = DropInSettings(EAHConfig(threshold=0.05, image_span=(3, 19)))


@pytest.fixture
def qkv() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    query, key, value = (2 * torch.randn(3, BATCH, HEADS, TOKENS, SIZE)).unbind(0)
    return query, key, value


def causal(pads: tuple[int, ...] = (0, 0)) -> torch.Tensor:
    """Return an additive mask, (B, 1, Q, K), of left-padded rows."""
    seen = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()[None].repeat(BATCH, 1, 1)
    for row, pad in enumerate(pads):
        seen[row, :, :pad] = False
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


def prompt(pads: tuple[int, ...] = (0, 0)) -> Prompt:
    valid = torch.arange(TOKENS) >= torch.tensor(pads)[:, None]
    column = torch.arange(TOKENS) - torch.tensor(pads)[:, None]
    return Prompt(TOKENS, 0, (column >= 3) & (column < 19), valid)


def sharing(pads: tuple[int, ...] = (0, 0), mask: torch.Tensor | None = None) -> HeadSharing:
    return HeadSharing(SETTINGS, prompt(pads), torch.float32, mask)


def weights_of(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.softmax(query @ key.transpose(2, 3) * SIZE**-0.5 + mask, -1)


@pytest.mark.parametrize("pads", [(0, 0), (5, 0)])
@pytest.mark.parametrize("rounding", [None, torch.bfloat16, torch.float32])
def test_sums_of_weights_are_those_of_queries_and_keys(
    qkv: tuple[torch.Tensor, ...], pads: tuple[int, int], rounding: torch.dtype | None
) -> None:
    query, key, _ = qkv
    mask = causal(pads)
    weights = weights_of(query, key, mask)
    visibility = Visibility(mask=mask, valid=prompt(pads).valid)

    found = column_sums(
        weights,
        weights.transpose(2, 3),
        visibility,
        scaling=1.0,
        rounding=rounding,
        rows=lambda start, stop, keys, _, heads: weights[:, heads, start:stop, :keys].clone(),
    )

    expected = column_sums(query, key, visibility, scaling=SIZE**-0.5, rounding=rounding)
    tolerance = {} if rounding is not torch.bfloat16 else {"rtol": 1.6e-2, "atol": 1e-3}
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


@pytest.mark.parametrize("pads", [(0, 0), (5, 0)])
def test_eager_and_sdpa_are_shared_alike(
    qkv: tuple[torch.Tensor, ...], pads: tuple[int, int]
) -> None:
    query, key, value = qkv
    mask = causal(pads)

    with sharing(pads, mask) as eager:
        scores = query @ key.transpose(2, 3) * SIZE**-0.5 + mask
        weights = functional.softmax(scores, dim=-1, dtype=torch.float32)
        by_hand = weights @ value
    with sharing(pads) as sdpa:
        fused = functional.scaled_dot_product_attention(query, key, value, mask)

    assert eager.choice is not None
    assert sdpa.choice is not None
    for row, pad in enumerate(pads):
        torch.testing.assert_close(by_hand[row, :, pad:], fused[row, :, pad:])
    assert torch.equal(weights[0, 0], weights[0, 3])  # one head's map


def test_weights_that_the_model_goes_on_with_are_not_overwritten(
    qkv: tuple[torch.Tensor, ...],
) -> None:
    query, key, _ = qkv
    scores = query @ key.transpose(2, 3) * SIZE**-0.5 + causal()
    settings = DropInSettings(EAHConfig(threshold=0.999, image_span=(3, 19)))  # no sink

    with HeadSharing(settings, prompt(), torch.float32, causal()):
        weights = torch.softmax(scores, -1)

    assert torch.equal(weights, torch.softmax(scores, -1))


def test_other_functions_and_other_shapes_are_left_alone(qkv: tuple[torch.Tensor, ...]) -> None:
    with sharing() as mode:
        assert torch.equal(torch.softmax(qkv[0][0], -1), qkv[0][0].softmax(-1))
        assert torch.equal(qkv[0] @ qkv[1].transpose(2, 3), qkv[0].matmul(qkv[1].mT))

    assert mode.choice is None


def test_attention_that_is_not_causal_is_counted_so(qkv: tuple[torch.Tensor, ...]) -> None:
    with sharing():
        found = functional.scaled_dot_product_attention(*qkv)
    with sharing():
        expected = functional.scaled_dot_product_attention(
            *qkv, attn_mask=torch.ones(BATCH, 1, TOKENS, TOKENS, dtype=torch.bool)
        )

    torch.testing.assert_close(found, expected)


def test_a_kernel_without_a_mask_behind_a_cache_is_refused(qkv: tuple[torch.Tensor, ...]) -> None:
    behind = Prompt(TOKENS, 3, torch.ones(BATCH, TOKENS + 3, dtype=torch.bool))

    with (
        HeadSharing(SETTINGS, behind, torch.float32, None),
        pytest.raises(eah.UnsupportedModelError, match="after 3 cached tokens"),
    ):
        functional.scaled_dot_product_attention(*qkv, is_causal=True)


def test_a_mask_of_its_own_for_each_head_is_refused(qkv: tuple[torch.Tensor, ...]) -> None:
    with (
        sharing(),
        pytest.raises(eah.UnsupportedModelError, match="one mask for all heads is needed"),
    ):
        functional.scaled_dot_product_attention(*qkv, causal().repeat(1, HEADS, 1, 1))


def of(span: tuple[int, int] | None = None, **settings: object) -> EAHConfig:
    return EAHConfig(image_span=span, **settings)


PAPER = DropInSettings(of())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, PAPER),
        ({"EAH_LAYERS": " ", "THRES": ""}, PAPER),
        ({"EAH_DISABLE": "0"}, PAPER),
        ({"EAH_DISABLE": "1"}, DropInSettings(of(), enabled=False)),
        (
            {"LAYER_NUM": "2", "HEAD_NUM": "7", "THRES": "0.01"},
            DropInSettings(of(layers=(2,), threshold=0.01, head=7), layers_named=True),
        ),
        (
            {"EAH_LAYERS": "2,1", "LAYER_NUM": "9", "EAH_HEAD": "auto"},
            DropInSettings(of(layers=(1, 2)), layers_named=True),
        ),
        (
            {"EAH_PRESET": "released-code"},
            DropInSettings(EAHConfig(**PRESETS["released-code"]), layers_named=True),
        ),
        (
            {"EAH_PRESET": "scale-free", "EAH_IMAGE_SPAN": "8:40"},
            DropInSettings(of((8, 40), rule="scale_free"), layers_named=True),
        ),
        (
            {"EAH_PRESET": "scale-free", "EAH_THRESHOLD": "0.03"},
            DropInSettings(
                of(rule="scale_free", threshold=0.03, threshold_unit="attention"),
                layers_named=True,
            ),
        ),
        (
            {"EAH_MIN_DENSITY": "0.15", "EAH_RECEIVERS": "3"},
            DropInSettings(of(min_density=0.15, receivers=3)),
        ),
        ({"EAH_RECEIVERS": "all"}, PAPER),
    ],
)  # fmt: skip
def test_settings_come_from_the_environment(
    environment: dict[str, str], expected: DropInSettings
) -> None:
    assert settings_from_environment(environment) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("LAYER_NUM", "1,1", "LAYER_NUM='1,1' can't be used: layers=.* names a layer twice"),
        ("EAH_LAYERS", "-1", "EAH_LAYERS='-1' can't be used"),
        ("EAH_LAYERS", "x", "EAH_LAYERS='x' can't be used: .*; write indices from 0, such as 1"),
        ("EAH_THRESHOLD", "much", "EAH_THRESHOLD='much' can't be used"),
        ("EAH_THRESHOLD", "nan", "threshold=nan, but a finite number is needed"),
        ("EAH_HEAD", "first", "EAH_HEAD='first' can't be used"),
        ("EAH_IMAGE_SPAN", "34", "EAH_IMAGE_SPAN='34' can't be used: image span"),
        ("EAH_TRESHOLD", "0.1", "EAH_TRESHOLD is not a setting; write EAH_THRESHOLD, or unset it"),
        ("EAH_LAYER", "2", "EAH_LAYER is not a setting; write EAH_LAYERS"),
        (
            "EAH_IMAGE_SPAN",
            "lava",
            "neither a span nor the name of one; write auto, start:stop such",
        ),
        ("EAH_MIN_DENSITY", "2", "EAH_MIN_DENSITY='2' can't be used: min_density=2.0"),
        ("EAH_RECEIVERS", "0", "EAH_RECEIVERS='0' can't be used: receivers=0"),
        ("EAH_RECEIVERS", "most", "write all, or a number of heads"),
        ("EAH_PRESET", "fast", "EAH_PRESET='fast', but it is one of paper, released-code"),
    ],
)
def test_unusable_settings_name_their_variable(name: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_from_environment({name: value})


def test_the_file_states_the_packages_version() -> None:
    assert eah.__version__ == VERSION


def test_settings_fit_in_a_line() -> None:
    assert str(PAPER) == (
        "layers 1; densest head; threshold 0.002 (attention); image tokens found by their "
        "embeddings"
    )
    assert str(settings_from_environment({"EAH_DISABLE": "yes"})) == "off (EAH_DISABLE)"
    some = settings_from_environment({"EAH_MIN_DENSITY": "0.2", "EAH_RECEIVERS": "5"})
    assert "threshold 0.002 (attention); min_density 0.2; 5 receivers; image" in str(some)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("auto", None),
        ("AUTO", None),
        ("opera", SPANS["opera"]),
        ("LLaVA_hf", (5, 581)),
        ("2:9", (2, 9)),
    ],
)
def test_image_tokens_are_found_named_or_given(text: str, span: tuple[int, int] | None) -> None:
    settings = settings_from_environment({"EAH_IMAGE_SPAN": text})

    assert settings.config.image_span == span
    assert str(settings).endswith(
        "image tokens {}:{} of every prompt".format(*span) if span else "found by their embeddings"
    )


def test_variables_of_others_are_no_settings() -> None:
    environment = {"EAH_CACHE": "x", "EAH_TRITON": "0", "EAH_DATA_FOLDER": "y", "LAYERS": "1"}

    assert settings_from_environment(environment) == PAPER


def test_the_line_at_the_start_and_the_log_are_settings() -> None:
    settings = settings_from_environment({"EAH_QUIET": "1", "EAH_LOG": "eah.jsonl"})

    assert (settings.quiet, settings.log) == (True, os.path.abspath("eah.jsonl"))
    assert not settings_from_environment({"EAH_QUIET": "0"}).quiet


@pytest.mark.parametrize("rest", ["input_ids", "inputs_embeds"])
def test_embeddings_that_a_model_puts_before_the_rest_are_image_tokens(rest: str) -> None:
    """The argument `query_embeds` of MiniGPT-4's and LAVIS' own files."""
    model = tiny.tiny_llama()
    ids = torch.randint(3, 60, (2, 7))
    text = {
        "input_ids": ids,
        "inputs_embeds": model.get_input_embeddings()(ids).detach(),
    }
    arguments = {rest: text[rest], "query_embeds": torch.randn(2, 5, 32)}

    under_way = PatchedModel(DropInSettings(EAHConfig()), (1,)).begin(model, arguments)

    assert under_way is not None
    assert under_way.prompt.queries == 12
    assert under_way.prompt.image is not None
    assert under_way.prompt.image.tolist() == [[True] * 5 + [False] * 7] * 2


def test_embeddings_that_cant_be_compared_are_refused() -> None:
    with pytest.raises(eah.EAHStateError, match=r"width 16 are not known: LlamaForCausalLM has"):
        PatchedModel(DropInSettings(EAHConfig()), (1,)).begin(
            tiny.tiny_llama(), {"inputs_embeds": torch.randn(1, 5, 16)}
        )
