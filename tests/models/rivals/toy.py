"""A random Llama with grouped key heads, a batch of unlike prompts, and both run side by side."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from models.decoding.adhh import Adhh
from models.decoding.base import DecodingMethod
from models.decoding.deco import Deco
from models.decoding.hgai import Hgai
from models.decoding.pai import Pai
from models.decoding.spin import Spin
from models.decoding.vaf import Vaf
from models.decoding.var import Var
from models.generation import EncodedPrompts, pad_prompts
from models.prompt_images import prompt_images
from tests.models.rivals.oracle import Text

WIDTH, VOCABULARY, DEPTH = 32, 31, 4
SINK_DIMS = (5, 13)
STEPS = 4
# Length and image tokens: another begin in each, two spans with text between, and no image.
PROMPTS = (
    (14, [*range(3, 8)]),
    (19, [*range(2, 5), *range(9, 13)]),
    (9, []),
    (11, [*range(6, 9)]),
)
VAR = Var(SINK_DIMS, tau=3.0, rho=0.8, summ=0.05, p=0.3, start_layer=1)
METHODS: dict[str, DecodingMethod] = {
    "hgai": Hgai((1, 2), alpha=0.7),
    "hgai non-causal": Hgai((1, 2), alpha=0.7, causal=False),
    "hgai non-causal alone": Hgai((0, 2), alpha=0.0, causal=False),
    "vaf": Vaf((0, 2), enhance=1.6, suppress=0.5),
    "vaf unsigned": Vaf((1, 2), enhance=1.6, suppress=0.5, signed=False),
    "vaf suppress": Vaf((1, 2, 3), enhance=1.0, suppress=0.0),
    "spin": Spin("all", kept=0.5, scale=0.1),
    "spin dropped": Spin((1, 3), kept=0.8, scale=0.0),
    "spin released": Spin("all", kept=0.5, scale=0.1, released=True),
    "spin non-causal": Spin((1, 2), kept=0.5, scale=0.1, causal=False),
    "spin none kept": Spin((2,), kept=0.2, scale=0.3),
    "adhh": Adhh("1h0+1h3+2h1+3h2", threshold=0.3),
    "adhh always": Adhh("0h2+3h3", threshold=0.0),
    "var": VAR,
    "var published": Var(SINK_DIMS, tau=3.0),
    "var all": Var(SINK_DIMS, tau=2.0, rho=1.0, summ=0.0, p=0.0, start_layer=0),
    "pai": Pai(alpha=0.4, gamma=1.0, start_layer=1),
}
DECO = Deco((1, 2, 3), alpha=1.5, top_p=0.8, top_k=6)


def make_llama(kernel: str = "sdpa", seed: int = 0, **changed: Any) -> Any:
    """Return a random model whose attention is neither flat nor all on one token."""
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "attn_implementation": kernel,
        "bos_token_id": 1,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    model = LlamaForCausalLM(LlamaConfig(**{**settings, **changed})).eval()
    randomize(model, seed)
    return model


def randomize(model: Any, seed: int = 0) -> None:
    """Give a model weights of its seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            is_norm = parameter.dim() == 1
            scale = 0.05 if is_norm else 0.35 if ".q_" in name or ".k_" in name else 0.2
            parameter.copy_(values * scale + (1.0 if is_norm else 0.0))


def make_prompts(seed: int = 0, kinds: Sequence[tuple[int, list[int]]] = PROMPTS) -> EncodedPrompts:
    """Return a batch, padded on the left; some image tokens and the first token are sinks."""
    generator = torch.Generator().manual_seed(seed)
    rows, masks = [], []
    for length, image in kinds:
        row = torch.randn(length, WIDTH, generator=generator)
        row[[0, *image[1:3]], SINK_DIMS[0]] = 25.0
        row[-2:-1, SINK_DIMS[1]] = -25.0  # a text token behind the image
        mask = torch.zeros(length, dtype=torch.bool)
        mask[image] = True
        rows.append(row)
        masks.append(mask)
    return pad_prompts(rows, masks)


def one_prompt(prompts: EncodedPrompts, index: int) -> EncodedPrompts:
    """Return one prompt of a batch without its padding."""
    begin = int(prompts.attention_mask[index].argmax())
    row = slice(index, index + 1)
    return EncodedPrompts(
        prompts.embeds[row, begin:],
        prompts.attention_mask[row, begin:],
        prompts.image_mask[row, begin:],
    )


def answers(prompts: EncodedPrompts, steps: int = STEPS) -> torch.Tensor:
    """Return tokens that each prompt is answered with, (B, steps)."""
    generator = torch.Generator().manual_seed(9)
    return torch.randint(2, VOCABULARY, (len(prompts), steps), generator=generator)


def as_texts(model: Any, prompts: EncodedPrompts, tokens: torch.Tensor) -> list[Text]:
    """Return what the oracle takes: each prompt with its answer, without padding."""
    texts = []
    for index, said in enumerate(tokens):
        one = one_prompt(prompts, index)
        behind = model.get_input_embeddings()(said).detach()
        embeds = torch.cat([one.embeds[0], behind]).double().numpy()
        image = one.image_mask[0].nonzero()[:, 0].tolist()
        texts.append(Text(np.asarray(embeds), one.embeds.shape[1], image))
    return texts


@torch.inference_mode()
def run_steps(
    model: Any,
    method: DecodingMethod | None,
    prompts: EncodedPrompts,
    tokens: torch.Tensor,
    image: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """Return the logits of each prompt and its answer, (T, V), from a prefill and cached steps.

    `image` is passed to the method in the place of the prompts' own mask.
    """
    mask, places = prompts.attention_mask, prompts.position_ids()
    if image is None and prompts.image_mask.any():  # else it is the wrappers' to say
        image = prompts.image_mask
    applied = nullcontext(()) if method is None else method.applied(model, image)
    with prompt_images(prompts.image_mask), applied as processors:
        output = model(
            inputs_embeds=prompts.embeds,
            attention_mask=mask,
            position_ids=places,
            use_cache=True,
        )
        passes = [processed(processors, output.logits)]
        for step in range(tokens.shape[1]):
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], -1)
            output = model(
                input_ids=tokens[:, step : step + 1],
                attention_mask=mask,
                position_ids=places[:, -1:] + step + 1,
                past_key_values=output.past_key_values,
                use_cache=True,
            )
            passes.append(processed(processors, output.logits))
    logits = torch.cat(passes, 1)
    return [row[int(seen.argmax()) :] for row, seen in zip(logits, mask, strict=True)]


def processed(processors: Any, logits: torch.Tensor) -> torch.Tensor:
    """Return the logits with what a method makes of those of the last token."""
    last = logits[:, -1]
    for processor in processors:
        last = processor(torch.zeros(len(last), 0, dtype=torch.long), last)
    return torch.cat([logits[:, :-1], last[:, None]], 1)
