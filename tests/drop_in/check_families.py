"""The drop-in in the place of other families' files, where scripts/test_matrix.sh swaps it in."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

FAMILIES = {"mistral": "Mistral", "qwen2": "Qwen2"}


def swapped(family: str) -> Any:
    if not (Path(transformers.__file__).parent / "models" / family).is_dir():
        pytest.skip(f"transformers {transformers.__version__} has no {family}")
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    if not Path(module.__file__).stem.endswith("_original"):
        pytest.skip(f"EAH's file is not in the place of modeling_{family}.py")
    return module


def plain(module: Any, family: str) -> Any:
    name = f"transformers.models.{family}.plain"
    spec = importlib.util.spec_from_file_location(name, module.__file__)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def build(cls: Any, family: str, kernel: str) -> Any:
    config = getattr(transformers, f"{FAMILIES[family]}Config")(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    config._attn_implementation = kernel
    model = cls(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.1 * noise if "norm" in name else 0.6 * noise)
    return model


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_shares_its_densest_head_and_is_else_untouched(
    family: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = swapped(family)
    monkeypatch.setenv("EAH_IMAGE_SPAN", "3:19")
    monkeypatch.setenv("EAH_LAYERS", "1")
    monkeypatch.setenv("EAH_THRESHOLD", "0.05")
    ids = torch.randint(3, 64, (1, 30), generator=torch.Generator().manual_seed(2))
    name = f"{FAMILIES[family]}ForCausalLM"
    model = build(getattr(transformers, name), family, kernel)
    other = build(getattr(plain(module, family), name), family, kernel)

    with torch.no_grad():
        assert type(model.model.layers[1].self_attn).__name__.startswith("EAH")
        assert not torch.allclose(model(ids).logits, other(ids).logits, atol=1e-3)
        assert torch.equal(model(ids[:, :18]).logits, other(ids[:, :18]).logits)
        monkeypatch.setenv("EAH_DISABLE", "1")
        off = build(getattr(transformers, name), family, kernel)
        assert torch.equal(off(ids).logits, other(ids).logits)


def test_families_do_not_get_in_each_others_way() -> None:
    mistral, qwen2 = swapped("mistral"), swapped("qwen2")

    assert transformers.Qwen2ForCausalLM is qwen2.Qwen2ForCausalLM
    assert transformers.MistralForCausalLM is mistral.MistralForCausalLM
