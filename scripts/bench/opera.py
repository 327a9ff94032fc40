"""Measure OPERA against evaluating its candidates one after another, and against beam search.

    python scripts/bench/opera.py

Both evaluate the same steps of the same random LLaMA (4 layers of width 512 by default),
alternately in one run; the answers must be equal.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
    StoppingCriteriaList,
    SuppressTokensLogitsProcessor,
)

from eval.command import finish
from eval.output.table import render
from models.decoding.base import Request
from models.decoding.opera_search import OperaSearch
from models.decoding.opera_settings import OperaSettings
from models.generation import EncodedPrompts

EOS = 2


class SequentialOpera(OperaSearch):
    """OPERA as its authors run it: a forward pass for each candidate."""

    def attention_of(self, candidates: torch.Tensor) -> torch.Tensor:
        """Return what all candidates at once return, one by one."""
        rows, count = candidates.shape
        keys = self.rows.visible.shape[1]
        found = torch.zeros(rows, count, keys + count, device=candidates.device)
        for i in range(count):
            row = super().attention_of(candidates[:, i : i + 1])[:, 0]  # (R, K + 1)
            found[:, i, :keys], found[:, i, keys + i] = row[:, :keys], row[:, keys]
        return found


def make_request(width: int, layers: int, beams: int, tokens: int, prompt: int) -> Request:
    """Return a prompt of random embeddings for a random model; its answer is never cut short."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2000, hidden_size=width, intermediate_size=11 * width // 4,
        num_hidden_layers=layers, num_attention_heads=width // 64,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    image = torch.zeros(1, prompt, dtype=torch.bool)
    image[:, 8:40] = True
    mask = torch.ones(1, prompt, dtype=torch.long)
    return Request(
        model,
        EncodedPrompts(torch.randn(1, prompt, width), mask, image),
        None,
        GenerationConfig(num_beams=beams, max_new_tokens=tokens, eos_token_id=EOS, pad_token_id=0),
        LogitsProcessorList([SuppressTokensLogitsProcessor([EOS])]),
        StoppingCriteriaList(),
        counted=(1,),
    )


def time_run(work: Any, model: Any) -> tuple[float, int, Any]:
    """Return seconds, forward passes, and what the work returned."""
    passes: list[int] = []
    hook = model.register_forward_pre_hook(lambda *_: passes.append(1))
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    hook.remove()
    return seconds, len(passes), result


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in (("width", 512), ("layers", 4), ("beams", 5), ("tokens", 64)):
        flags.add_argument(f"--{name}", type=int, default=value)
    flags.add_argument("--prompt", type=int, default=60)
    flags.add_argument("--repeats", type=int, default=5)
    given = flags.parse_args(arguments)
    request = make_request(given.width, given.layers, given.beams, given.tokens, given.prompt)
    settings = OperaSettings()

    def beam_search() -> Any:
        return request.model.generate(
            inputs_embeds=request.require_embeddings().embeds,
            attention_mask=request.require_embeddings().attention_mask,
            generation_config=request.config,
            logits_processor=request.processors,
        )

    ways: dict[str, Any] = {
        "beam search": beam_search,
        "OPERA": lambda: OperaSearch(request, settings).run(),
        "OPERA, one candidate after another": lambda: SequentialOpera(request, settings).run(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    passes: dict[str, int] = {}
    answers: dict[str, list[int]] = {}
    for _ in range(given.repeats):
        for name, work in ways.items():
            took, passes[name], result = time_run(work, request.model)
            seconds[name].append(took)
            if name != "beam search":
                answers[name] = result[0].beams.best().tolist()
    if len({tuple(answer) for answer in answers.values()}) != 1:
        raise SystemExit(f"{flags.prog}: error: the two ways do not give the same answer")
    slowest = seconds["OPERA, one candidate after another"]
    rows = [
        [
            name,
            f"{median(times):.2f}",
            f"{median(a / b for a, b in zip(times, slowest, strict=True)):.2f}",
            f"{passes[name] / given.tokens:.2f}",
        ]
        for name, times in seconds.items()
    ]
    print(render(["", "seconds", "ratio", "forward passes per token"], rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish("bench_opera", lambda: run(arguments), interrupted="run it again")


if __name__ == "__main__":
    sys.exit(main())
