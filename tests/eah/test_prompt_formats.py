"""Prompts of real repositories with LLaMA's tokenizer, and their image tokens in the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import eah
from eah.method import Choice, Columns, paper
from eah.settings import SPANS
from tests.drop_in.formats import FORMATS, VOCABULARY, Format

sentencepiece = pytest.importorskip("sentencepiece")
NAMES = {
    "LLaVA": "llava", "VCD": "llava", "llava-hf": "llava-hf", "OPERA": "opera", "PAI": "opera",
    "Shikra": "shikra", "MiniGPT-4": "minigpt4",
}  # fmt: skip


@pytest.fixture(scope="module")
def pieces(shared: Path) -> Any:
    return sentencepiece.SentencePieceProcessor(model_file=str(shared / "tokenizer/llama.model"))


def encode(parts: tuple[str | int, ...], pieces: Any) -> list[int]:
    return [i for part in parts for i in ([part] if isinstance(part, int) else pieces.encode(part))]


@pytest.mark.parametrize("prompt", FORMATS, ids=lambda prompt: prompt.name)
def test_the_counts_are_those_of_the_tokenizer(prompt: Format, pieces: Any) -> None:
    before, after = encode(prompt.before, pieces), encode(prompt.after, pieces)

    assert len(before) == prompt.start
    assert len(before) + prompt.image + len(after) == prompt.length
    if prompt.name in NAMES:
        assert list(SPANS[NAMES[prompt.name]]) == prompt.span


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prompt", FORMATS, ids=lambda prompt: prompt.name)
def test_the_library_finds_the_image_tokens(
    prompt: Format, dtype: torch.dtype, pieces: Any
) -> None:
    settings = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=1024,
    )  # fmt: skip
    model = LlamaForCausalLM(settings).eval().to(dtype)
    embed = model.get_input_embeddings()
    parts = [encode(side, pieces) for side in (prompt.before, prompt.after)]
    before, after = (embed(torch.tensor(ids, dtype=torch.long)).detach() for ids in parts)
    rows = [torch.cat([before, torch.randn(prompt.image, 32).to(dtype), after]) for _ in range(2)]
    padding = embed(torch.zeros(5, dtype=torch.long)).detach()
    embeds = torch.stack([torch.cat([padding, rows[0]]), torch.cat([rows[1], padding])])
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    mask[0, :5] = mask[1, -5:] = 0

    images = []

    def rule(columns: Columns, image: torch.Tensor) -> Choice:
        images.append(image)
        return paper(columns, image)

    with torch.no_grad(), eah.enabled(model, eah.EAHConfig(rule=rule)):
        model(inputs_embeds=embeds, attention_mask=mask)

    start, stop = prompt.span
    true = torch.zeros(mask.shape, dtype=torch.bool)
    true[0, 5 + start : 5 + stop] = true[1, start:stop] = True
    assert torch.equal(*images, true)
