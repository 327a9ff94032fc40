"""Settings that change nothing leave logits and answers exactly what they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.decoding.adhh import Adhh
from models.decoding.base import DecodingMethod
from models.decoding.deco import Deco
from models.decoding.hgai import Hgai
from models.decoding.spin import Spin
from models.decoding.vaf import Vaf
from models.decoding.var import Var
from tests.models.rivals.toy import (
    DEPTH,
    answers,
    make_llama,
    make_prompts,
    one_prompt,
    run_steps,
)

OFF: dict[str, DecodingMethod] = {
    "hgai": Hgai(alpha=0.0),
    "vaf": Vaf(enhance=1.0, suppress=1.0),
    "vaf unsigned": Vaf(enhance=1.0, suppress=1.0, signed=False),
    "spin keeps all": Spin(kept=1.0),
    "spin scales by 1": Spin(scale=1.0),
    "spin released": Spin(kept=1.0, released=True),
    "adhh no heads": Adhh("none"),
    "adhh no threshold": Adhh("0h1+1h0+1h3+2h2", threshold=2.0),
    "adhh batch": Adhh("none", batch_sum=True),
    "var": Var(p=1.0),
    "var released": Var(p=1.0, released=True),
}


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("name", OFF)
def test_logits_are_the_baselines_bitwise(name: str, kernel: str) -> None:
    model, prompts = make_llama(kernel), make_prompts()

    found = run_steps(model, OFF[name], prompts, answers(prompts))

    for logits, plain in zip(found, run_steps(model, None, prompts, answers(prompts)), strict=True):
        assert torch.equal(logits, plain)


@pytest.mark.parametrize("strength", [0.0, 1e-3])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_deco_without_weight_chooses_the_baselines_tokens(kernel: str, strength: float) -> None:
    model, prompts = make_llama(kernel), make_prompts()
    method = Deco(tuple(range(DEPTH)), alpha=strength)

    def generate(processors: Any = ()) -> list[list[int]]:
        return [  # type: ignore[no-any-return]
            model.generate(
                **one_prompt(prompts, index).inputs,
                max_new_tokens=8,
                do_sample=False,
                logits_processor=list(processors),
            )[0].tolist()
            for index in range(len(prompts))
        ]

    with method.applied(model) as processors:
        found = generate(processors)
    assert found == generate()
    with Deco(method.layers, alpha=6.0).applied(model) as processors:
        assert found != generate(processors)
