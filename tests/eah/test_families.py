"""EAH on transformers' vision-language families, against plain eager attention."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.version import Version
from transformers import PreTrainedModel, __version__
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

import eah
from tests.eah import family_oracle
from tests.eah.families import FAMILIES, REFUSED, SKIPPED, WORKING, Family
from tests.eah.families import __main__ as table
from tests.eah.families.case import BIAS, CROSS, ENCODER, IMAGE, KERNEL, SPARSE, VIDEO
from tests.eah.families.situations import SITUATIONS, Situation

pytestmark = pytest.mark.skipif(
    Version(__version__) < Version("5.23"), reason="the families are those of transformers 5.23"
)

CASES = [(family, prompt) for family in WORKING for prompt in family.prompts]
KERNELS = ("eager", "sdpa")
WORDS = {
    ENCODER: "decoder",
    CROSS: "cross|decoder",
    SPARSE: "sparse",
    BIAS: "bias",
    KERNEL: "attention",
}
HYBRIDS = [family for family in WORKING if 0 not in family.layers]


@dataclass(frozen=True)
class Outcome:
    """What a model with EAH did: reports, logits with EAH, and without, before and after."""

    reports: list[eah.LayerReport]
    logits: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor


@functools.cache
def model_of(family: Family, kernel: str) -> PreTrainedModel:
    return family.build(kernel)


@functools.cache
def plain_model_of(family: Family, kernel: str) -> PreTrainedModel:
    """Return the oracle's model, on which EAH is never enabled and whose decoder is eager."""
    if family.eager_tower or kernel == "eager":
        return family.build("eager")
    model = family.build(kernel)
    model.config._attn_implementation_internal = "eager"  # without the setter: the decoder's alone
    return model


@functools.cache
def expected(family: Family, prompt: str, kernel: str = "eager") -> family_oracle.Expected:
    # A padded batch gets the same mask with both kernels.
    if kernel == "sdpa" and family.sdpa_as is not None and prompt != "left-padded batch":
        family = next(other for other in FAMILIES if other.name == family.sdpa_as)
    inputs = family.inputs(prompt)
    image = family.image_columns(inputs)
    return family_oracle.expect(plain_model_of(family, kernel), inputs, image, family.layer)


@functools.cache
def outcome(family: Family, prompt: str, kernel: str) -> Outcome:
    model, inputs = model_of(family, kernel), family.inputs(prompt)
    threshold = expected(family, prompt, kernel).threshold
    before = family_oracle.run(model, inputs)
    with eah.enabled(model, eah.EAHConfig(layers=(family.layer,), threshold=threshold)) as handle:
        logits = family_oracle.run(model, inputs)
        reports = handle.report()
    return Outcome(reports, logits, before, family_oracle.run(model, inputs))


def run_enabled(model: PreTrainedModel, family: Family) -> None:
    """Enable EAH and run the prompts that a family has."""
    with eah.enabled(model, eah.EAHConfig(layers=family.layers)):
        for prompt in family.prompts:
            family_oracle.run(model, family.inputs(prompt))


def snapshot(model: PreTrainedModel) -> list[tuple[Any, ...]]:
    """Return what `enable` changes in a model: configs, their kernels, hooks, attributes."""
    found = []
    for module in model.modules():
        config = module.__dict__.get("config")
        kernel = getattr(config, "_attn_implementation", None)
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        found.append((id(config), kernel, hooks, sorted(module.__dict__)))
    return found


def name_of(value: object) -> str:
    return value.name if isinstance(value, Family) else str(value)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("family", "prompt"), CASES, ids=name_of)
def test_counts_and_head_are_the_oracles(family: Family, prompt: str, kernel: str) -> None:
    wanted = expected(family, prompt, kernel)
    (report,) = outcome(family, prompt, kernel).reports
    assert report.image_tokens == wanted.image_tokens
    assert report.counts == wanted.counts
    assert report.head == wanted.head


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("family", "prompt"), CASES, ids=name_of)
def test_logits_are_the_oracles(family: Family, prompt: str, kernel: str) -> None:
    inputs = family.inputs(prompt)
    tokens = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    found, wanted = outcome(family, prompt, kernel), expected(family, prompt, kernel)
    # Kernels differ by more than torch's default on some CPUs, in the plain model already.
    drift = (found.before - wanted.plain)[tokens].abs().max().item()
    assert drift < 1e-3
    atol = max(family.atol, 4 * drift)
    torch.testing.assert_close(found.logits[tokens], wanted.logits[tokens], rtol=1.3e-6, atol=atol)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("family", "prompt"), CASES, ids=name_of)
def test_disabling_restores_the_outputs(family: Family, prompt: str, kernel: str) -> None:
    result = outcome(family, prompt, kernel)
    assert torch.equal(result.after, result.before)


@pytest.mark.parametrize("prompt", ["one image", "left-padded batch"])
@pytest.mark.parametrize("family", WORKING, ids=name_of)
def test_generation_finds_what_the_forward_pass_finds(family: Family, prompt: str) -> None:
    model, inputs = model_of(family, "sdpa"), family.inputs(prompt)
    wanted = expected(family, prompt, "sdpa")
    config = eah.EAHConfig(layers=(family.layer,), threshold=wanted.threshold)
    with eah.enabled(model, config) as handle:
        model.generate(**inputs, max_new_tokens=3, do_sample=False, suppress_tokens=[IMAGE, VIDEO])
        (report,) = handle.report()
    assert (report.counts, report.head) == (wanted.counts, wanted.head)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", WORKING, ids=name_of)
def test_disabling_restores_the_model(family: Family, kernel: str) -> None:
    model = model_of(family, kernel)
    before = snapshot(model)
    with eah.enabled(model, eah.EAHConfig(layers=family.layers)):
        pass
    assert snapshot(model) == before


@pytest.mark.parametrize("prompt", ["one image", "left-padded batch"])
@pytest.mark.parametrize("name", ["gemma3", "paligemma with types", "llama4", "llava"])
def test_flex_attention_is_counted_by_its_block_mask(
    name: str, prompt: str, uncompiled_flex: None
) -> None:
    family = next(family for family in WORKING if family.name == name)
    wanted = expected(family, prompt)
    found = outcome(family, prompt, "flex_attention")
    (report,) = found.reports

    inputs = family.inputs(prompt)
    tokens = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    torch.testing.assert_close(found.logits[tokens], wanted.logits[tokens], rtol=1e-5, atol=1e-3)
    assert (report.counts, report.head) == (wanted.counts, wanted.head)


def test_the_cases_tell_right_from_wrong() -> None:
    differ, shared = 0, 0
    for family, prompt in CASES:
        wanted = expected(family, prompt)
        assert wanted.margin > 1e-5, (family.name, prompt)
        differ += all(len(set(counts)) > 1 for counts in wanted.counts)
        shared += not torch.allclose(wanted.logits, wanted.plain, atol=0.01)
    assert differ > 0.8 * len(CASES)
    assert shared == len(CASES)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", REFUSED, ids=name_of)
def test_a_family_that_would_be_wrong_is_refused(family: Family, kernel: str) -> None:
    assert family.refused is not None
    model = family.build(kernel)
    before = snapshot(model)
    with pytest.raises(eah.UnsupportedModelError, match=WORDS[family.refused]):
        run_enabled(model, family)
    assert not eah.is_enabled(model)
    assert snapshot(model) == before


@pytest.mark.parametrize("family", HYBRIDS, ids=name_of)
def test_a_layer_without_softmax_attention_is_an_error_that_lists_the_others(
    family: Family,
) -> None:
    layers = ", ".join(str(layer) for layer in family.layers)
    with pytest.raises(eah.EAHConfigError, match=layers):
        eah.enable(model_of(family, "sdpa"), eah.EAHConfig(layers=(0,)))


def test_every_image_text_model_has_a_case_or_a_reason() -> None:
    cases = {family.name.partition(" ")[0] for family in FAMILIES}
    table = set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    assert table - cases == set(SKIPPED)


def test_the_tables_of_families_are_current() -> None:
    page = table.TABLE_FILE.read_text(encoding="utf-8")

    assert table.with_tables(page, table.tables(page)) == page


def test_only_the_part_between_the_markers_is_replaced() -> None:
    page = f"mine\n{table.BEGIN}\nold\n{table.END}\nmine, too\n"

    assert table.with_tables(page, "new") == page.replace("old", "new")
    for damaged in (page.replace(table.END, ""), page + page, page.replace(table.BEGIN, "")):
        with pytest.raises(ValueError, match=r"models.md needs <!-- table"):
            table.with_tables(damaged, "new")


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_every_situation_of_the_table_has_its_tests(situation: Situation) -> None:
    tests = Path(__file__).resolve().parents[1]

    assert situation.tests
    for test in situation.tests:
        file, _, function = test.partition("::")
        assert f"def {function}(" in (tests / file).read_text(encoding="utf-8"), test
