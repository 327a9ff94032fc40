"""Golden numbers of other methods, from the unmodified reference code, and our runs beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from models.decoding.base import DecodingMethod

FOLDER = Path(__file__).resolve().parents[4] / "shared/golden/rivals"


@dataclass(frozen=True)
class Golden:
    """One file: a toy Llama, prompts, and what the reference made of them."""

    tensors: dict[str, torch.Tensor]
    about: dict[str, Any]

    def model(self, kernel: str) -> LlamaForCausalLM:
        """Return the toy with an attention kernel."""
        config = LlamaConfig(**self.about["config"], attn_implementation=kernel)
        with torch.random.fork_rng():
            model = LlamaForCausalLM(config)
        weights = {
            name.removeprefix("weights."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith("weights.")
        }
        model.load_state_dict(weights)
        return model.eval()

    def embeds(self, prompt: str) -> torch.Tensor:
        """Return a prompt, shape (1, T, E)."""
        return self.tensors[f"{prompt}.inputs_embeds"]

    def image(self, prompt: str) -> torch.Tensor:
        """Return the mask of its image tokens, (1, T)."""
        start, stop = self.about.get("image_span", (0, 0))  # DeCo's has none
        mask = torch.zeros(1, self.embeds(prompt).shape[1], dtype=torch.bool)
        mask[:, start:stop] = True
        return mask


def golden(name: str) -> Golden:
    """Read a file; the test is skipped where the folder is absent."""
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"reference data is absent: {path.name}")
    with safe_open(path, "pt") as opened:
        about = {key: json.loads(value) for key, value in opened.metadata().items()}
        return Golden({key: opened.get_tensor(key) for key in opened.keys()}, about)  # noqa: SIM118


@dataclass(frozen=True)
class Steps:
    """What a model said: prefill logits (T, V), logits and token of each step, (steps, V)."""

    prefill: torch.Tensor
    logits: torch.Tensor
    tokens: list[int]


@torch.inference_mode()
def run(model: Any, method: DecodingMethod, embeds: torch.Tensor, image: Any, steps: int) -> Steps:
    """Prefill and decode greedily by hand, with a cache, under a method."""
    with method.applied(model, image) as processors:
        output = model(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
            use_cache=True,
        )
        prefill, logits, tokens = output.logits[0], [], []
        for _ in range(steps):
            scores = output.logits[:, -1].float()
            ids = torch.tensor([tokens], dtype=torch.long)
            for processor in processors:
                scores = processor(ids, scores)
            logits.append(scores[0])
            tokens.append(int(scores.argmax()))
            length = embeds.shape[1] + len(tokens)
            output = model(
                input_ids=torch.tensor([tokens[-1:]]),
                attention_mask=torch.ones(1, length, dtype=torch.long),
                past_key_values=output.past_key_values,
                use_cache=True,
            )
    return Steps(prefill, torch.stack(logits), tokens)
