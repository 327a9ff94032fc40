"""The image tokens of real repositories' prompts, as the drop-in finds them.

Run like check_drop_in.py. Tokens are random but for their number; what is found is read from the
log of prompts (EAH_LOG).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from check_drop_in import (
    environment,  # noqa: F401  # a fixture for every test
    logits,
    plain,  # noqa: F401  # a fixture
    tally,  # noqa: F401  # a fixture for every test
    tiny_config,
)
from formats import FORMATS, VOCABULARY, Format
from transformers import LlamaForCausalLM

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SHORTER = 3  # tokens that the second prompt of a batch has less, after the image


@pytest.fixture(autouse=True)
def log(environment: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Start with the default settings and a log of prompts."""
    for name in ("EAH_IMAGE_SPAN", "EAH_LAYERS", "EAH_THRESHOLD"):
        environment.delenv(name)
    environment.setenv("EAH_LOG", str(tmp_path / "eah.jsonl"))
    return tmp_path / "eah.jsonl"


def build(cls: Any, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    config = tiny_config(vocab_size=VOCABULARY, max_position_embeddings=1024)
    return cls(config).eval().to(dtype)


def batch(model: Any, prompt: Format) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the embeddings of a prompt and of a shorter one, left-padded, and their mask."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (2, prompt.length), generator=generator)
    embeds = model.get_input_embeddings()(ids).detach()
    image = torch.randn(2, prompt.image, embeds.shape[-1], generator=generator)
    start, stop = prompt.span
    embeds[:, start:stop] = image.to(embeds.dtype)
    mask = torch.ones(2, prompt.length, dtype=torch.long)
    mask[1, :SHORTER] = 0
    embeds[1] = embeds[1].roll(SHORTER, 0)
    embeds[1, :SHORTER] = model.get_input_embeddings()(torch.tensor([0])).detach()
    return embeds, mask


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("prompt", FORMATS, ids=lambda prompt: prompt.name)
def test_image_tokens_are_the_true_ones(
    prompt: Format, beams: int, dtype: torch.dtype, log: Path
) -> None:
    model = build(LlamaForCausalLM, dtype)
    embeds, mask = batch(model, prompt)

    with torch.no_grad():
        model.generate(inputs_embeds=embeds, attention_mask=mask, num_beams=beams,
                       max_new_tokens=2, do_sample=False)  # fmt: skip

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["image_spans"] for line in lines] == [[prompt.span]] * 2
    assert [line["tokens"] for line in lines] == [prompt.length, prompt.length - SHORTER]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_text_of_700_tokens_is_bitwise_the_originals(
    dtype: torch.dtype,
    plain: Any,
    log: Path,
) -> None:
    model, other = build(LlamaForCausalLM, dtype), build(plain.LlamaForCausalLM, dtype)
    ids = torch.randint(3, VOCABULARY, (2, 700))
    embeds = model.get_input_embeddings()(ids).detach()

    for inputs in ({"input_ids": ids}, {"inputs_embeds": embeds}):
        assert torch.equal(logits(model, **inputs), logits(other, **inputs))
    assert log.read_text() == ""
