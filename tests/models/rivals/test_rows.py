"""Rows before the image's end stay bitwise what they were, in all layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.decoding.base import DecodingMethod
from models.decoding.var import Var
from models.generation import EncodedPrompts
from tests.models.rivals.toy import METHODS, SINK_DIMS, make_llama, make_prompts, one_prompt

CAUSAL = [name for name in METHODS if "non-causal" not in name]
LAST_ROW = [
    name for name in CAUSAL if name.startswith(("hgai", "adhh", "pai")) or name == "spin released"
]


@torch.inference_mode()
def prefill(model: Any, method: DecodingMethod | None, prompts: EncodedPrompts) -> torch.Tensor:
    """Return hidden states, keys and values of all layers side by side, (B, S, X)."""

    def run() -> Any:
        return model(
            inputs_embeds=prompts.embeds,
            attention_mask=prompts.attention_mask,
            position_ids=prompts.position_ids(),
            output_hidden_states=True,
            use_cache=True,
        )

    if method is None:
        output = run()
    else:
        with method.applied(model, prompts.image_mask):
            output = run()
    kept = [part for layer in output.past_key_values.layers for part in (layer.keys, layer.values)]
    return torch.cat([*output.hidden_states, *(p.transpose(1, 2).flatten(2) for p in kept)], -1)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("name", METHODS)
def test_rows_before_the_images_end_are_the_baselines(name: str, kernel: str) -> None:
    model, prompts = make_llama(kernel), make_prompts()
    begins = prompts.attention_mask.argmax(-1).tolist()

    same = (prefill(model, METHODS[name], prompts) == prefill(model, None, prompts)).all(-1)

    changed = []
    for row, begin, image in zip(same, begins, prompts.image_mask, strict=True):
        places = image.nonzero()[:, 0].tolist()
        if name not in CAUSAL:
            assert not row[begin : (places or [len(row)])[-1]].all()
        elif not places:
            assert row[begin:].all(), "a prompt without an image"
        else:
            first = len(row) - 1 if name in LAST_ROW else places[-1] + 1
            assert row[begin:first].all()
            changed.append(not row[first:].all())
    assert any(changed) or name not in CAUSAL


def test_the_prefix_is_shared_by_just_those_methods() -> None:
    shared = {name for name, method in METHODS.items() if method.can_use_cached_prefix}

    assert shared == set(CAUSAL) - {"pai"}


def test_the_released_form_of_var_changes_rows_of_the_image_from_the_second_prompt_on() -> None:
    method = Var(SINK_DIMS, tau=2.0, rho=1.0, summ=0.0, p=0.0, start_layer=0, released=True)
    model, prompts = make_llama(), make_prompts()
    changed = []
    for index in (0, 1):
        one = one_prompt(prompts, index)
        end = int(one.image_mask[0].nonzero().max()) + 1
        both = prefill(model, method, one), prefill(model, None, one)
        changed.append(not torch.equal(*(part[:, :end] for part in both)))

    assert changed == [False, True]
