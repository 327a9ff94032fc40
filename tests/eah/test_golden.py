"""The preset released-code against numbers that the authors' own file gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

import eah
from tests.eah.tiny import KERNELS

LENGTHS = (626, 640, 700)
PRESET = eah.EAHConfig.preset("released-code")
SETTINGS = (
    "vocab_size",
    "max_position_embeddings",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "rms_norm_eps",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(shared / "golden" / "llama_official_eah.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.fixture(scope="module", params=KERNELS)
def model(request: pytest.FixtureRequest, golden: Any) -> LlamaForCausalLM:
    tensors, metadata = golden
    settings = json.loads(metadata["config"])
    config = LlamaConfig(
        **{name: settings[name] for name in SETTINGS}, attn_implementation=request.param
    )
    model = LlamaForCausalLM(config).eval()
    weights = {
        n.removeprefix("weights."): t for n, t in tensors.items() if n.startswith("weights.")
    }
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not missing
    assert all("rotary" in name for name in unexpected)
    return model


def test_the_file_holds_these_lengths(golden: Any) -> None:
    assert tuple(json.loads(golden[1]["lengths"])) == LENGTHS


@torch.no_grad()
def unpatched_logits(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Return the prompt's last 64 logits, in chunks: eager maps of a whole prompt are slow."""
    cache = DynamicCache()
    logits = [model(part, past_key_values=cache).logits[0] for part in ids.split(128, dim=1)]
    return torch.cat(logits)[-64:]


@torch.no_grad()
def greedy(model: LlamaForCausalLM, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the prompt's last 64 logits, and the prompt with 24 tokens more, from one prefill."""
    output = model(ids, use_cache=True)
    logits = output.logits[0, -64:]
    for _ in range(23):
        ids = torch.cat([ids, output.logits[:, -1:].argmax(-1)], 1)
        output = model(ids[:, -1:], past_key_values=output.past_key_values)
    return logits, torch.cat([ids, output.logits[:, -1:].argmax(-1)], 1)


@pytest.mark.parametrize("length", LENGTHS)
def test_head_counts_tokens_and_logits_are_those_of_the_authors_file(
    model: LlamaForCausalLM, golden: Any, length: int
) -> None:
    tensors, metadata = golden
    ids, base = tensors[f"ids.{length}"], tensors[f"logits_base.{length}"]
    base_drift = (unpatched_logits(model, ids) - base).abs().max()

    with eah.enabled(model, PRESET) as handle:
        logits, tokens = greedy(model, ids)

    (report,) = handle.report()
    assert (report.layer, report.head) == (15, (int(metadata[f"best_head.{length}"]),))
    assert torch.equal(torch.tensor(report.counts[0]), tensors[f"counts.{length}"])
    assert torch.equal(tokens, tensors[f"generated_eah.{length}"])
    assert not torch.equal(tokens, tensors[f"generated_base.{length}"])
    # The unpatched model drifts between versions of transformers; EAH may not drift further.
    drift = (logits - tensors[f"logits_eah.{length}"]).abs().max()
    assert drift <= 2 * base_drift
    assert (logits - base).abs().max() > 100 * drift


@pytest.mark.parametrize("model", ["sdpa"], indirect=True)
def test_generate_gives_the_authors_tokens(model: LlamaForCausalLM, golden: Any) -> None:
    ids, expected = golden[0]["ids.626"], golden[0]["generated_eah.626"]

    with eah.enabled(model, PRESET):
        generated = model.generate(ids, max_new_tokens=24, do_sample=False)

    assert torch.equal(generated, expected)
