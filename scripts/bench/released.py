"""One layer's attention in three ways: plain, with EAH, and as the authors released it.

    python scripts/bench/released.py released --tokens 4096    # extra memory of one way, in bytes

The released way is written here from what the authors' file computes, without eah: it builds the
whole attention map, reads every head's columns in a Python loop, copies the winner's map over all
the others, and multiplies the maps with the values. `costs.py` compares the three; run as a
command, this file measures the memory of one of them on the CPU, in a separate process.

Axes: B batch, H heads, S tokens, D head size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch.nn import functional as F

from eah import EAHConfig
from eah.method import NO_HEAD
from eah.operators import choose_head, image_sums, share_head
from eah.visibility import Visibility

STATUS: Final = Path("/proc/self/status")
RELEASED_THRESHOLD: Final = 0.0008


@dataclass(frozen=True, slots=True)
class LayerShape:
    """An attention layer and its prompt; the defaults are LLaVA-1.5-7B's.

    Attributes:
        heads: Attention heads.
        tokens: Prompt length.
        size: Head size.
        span: Image tokens, [start, stop).
        released_span: Image tokens as the authors' file has them.
    """

    heads: int = 32
    tokens: int = 640
    size: int = 128
    span: tuple[int, int] = (34, 610)
    released_span: tuple[int, int] = (36, 611)

    @property
    def words(self) -> list[str]:
        """Its sizes as a command line."""
        sizes = {"heads": self.heads, "tokens": self.tokens, "size": self.size}
        return [word for name, size in sizes.items() for word in (f"--{name}", str(size))]


class Layer(NamedTuple):
    """A layer's query, key and value after position encoding, each (B, H, S, D)."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


class ReleasedChoice(NamedTuple):
    """What the released way found in batch row 0.

    Attributes:
        head: The head that was copied over the others, -1 for none.
        counts: Columns above the threshold, per head.
    """

    head: int
    counts: list[int]


def make_layer(shape: LayerShape, device: torch.device, *, seed: int = 0) -> Layer:
    """Draw a layer's inputs, in memory as transformers leaves them: (B, S, H, D), transposed.

    Args:
        shape: Size of the layer; the batch is 1.
        device: Where it lives; bfloat16 on a GPU, float32 on the CPU.
        seed: Seed of the draw.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = torch.Generator(device).manual_seed(seed)
    size = (1, shape.tokens, shape.heads, shape.size)
    query, key, value = (
        torch.randn(size, generator=generator, device=device, dtype=dtype).transpose(1, 2)
        for _ in range(3)
    )
    return Layer(query, key, value)


def plain_attention(layer: Layer, shape: LayerShape) -> torch.Tensor:
    """Return the layer's output without EAH, (B, H, S, D)."""
    return F.scaled_dot_product_attention(*layer, is_causal=True)


def eah_attention(layer: Layer, shape: LayerShape) -> torch.Tensor:
    """Return the layer's output with the preset "paper", (B, H, S, D)."""
    query, key, value = layer
    image = torch.zeros(1, shape.tokens, dtype=torch.bool, device=query.device)
    image[:, slice(*shape.span)] = True
    sums = image_sums(query, key, Visibility(), scaling=shape.size**-0.5, image=image)
    choice = choose_head(sums, image, EAHConfig())
    query, key = share_head(query, key, choice.head)
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)


def released_attention(layer: Layer, shape: LayerShape) -> torch.Tensor:
    """Return the layer's output as the authors' file computes it, (B, H, S, D)."""
    attn_weights = attention_map(layer)
    share_map(attn_weights, shape.released_span, RELEASED_THRESHOLD)
    return torch.matmul(attn_weights, layer.value)


def attention_map(layer: Layer) -> torch.Tensor:
    """Return softmax(Q K^T / sqrt(D) + causal mask) as eager attention does, (B, H, S, S)."""
    query, key, _ = layer
    tokens, size = query.shape[2:]
    mask = torch.full((tokens, tokens), torch.finfo(query.dtype).min, device=query.device)
    mask = mask.triu(1).to(query.dtype)
    scores = torch.matmul(query, key.transpose(2, 3)) * size**-0.5 + mask
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)


def share_map(
    attn_weights: torch.Tensor, span: tuple[int, int], threshold: float
) -> ReleasedChoice:
    """Copy the densest head's map over the other heads of batch row 0, in place.

    Args:
        attn_weights: Softmax output, shape (B, H, S, S).
        span: Image columns [start, stop), 36 and 611 in the authors' file.
        threshold: A column whose mean is greater counts, 0.0008 in the authors' file.
    Returns:
        The head that was copied, and the counts.
    """
    start, stop = span
    divisor = torch.arange(stop, start, -1, device=attn_weights.device)
    counts: list[int] = []
    for head_map in attn_weights[0]:  # (S, S)
        off_diagonal = head_map.clone()
        off_diagonal.fill_diagonal_(0)
        mean = off_diagonal[:, start:stop].sum(0) / divisor  # (S, S) -> (stop - start,)
        counts.append(int((mean > threshold).sum()))
    best = counts.index(max(counts))
    if best == 0:  # head 0 may win, or nobody: the file's test for a winner is "greater than 0"
        return ReleasedChoice(NO_HEAD, counts)
    attn_weights[0] = attn_weights[0, best].clone()  # (S, S) -> (H, S, S)
    return ReleasedChoice(best, counts)


WAYS: Final[dict[str, Callable[[Layer, LayerShape], torch.Tensor]]] = {
    "plain": plain_attention,
    "eah": eah_attention,
    "released": released_attention,
}


@torch.no_grad()
def extra_bytes(way: str, shape: LayerShape) -> int:
    """Measure a way's peak resident memory over its inputs and output, on the CPU.

    Meant for a fresh process: memory that a process once had, the next measurement would hide.
    """
    run = WAYS[way]
    few = replace(shape, tokens=32, span=(0, 16), released_span=(0, 16))
    run(make_layer(few, torch.device("cpu")), few)  # threads and libraries
    layer = make_layer(shape, torch.device("cpu"))
    before = resident_bytes("VmRSS")
    output = run(layer, shape)
    return resident_bytes("VmHWM") - before - output.nbytes


def resident_bytes(field: str) -> int:
    """Read a field of /proc. Not `ru_maxrss`: a process takes that over from its parent."""
    lines = STATUS.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def main() -> None:
    """Parse the command line and print the extra memory of one way, in bytes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=WAYS, help="how the layer is computed")
    for name in ("heads", "tokens", "size"):
        parser.add_argument(f"--{name}", type=int, default=getattr(LayerShape(), name))
    args = parser.parse_args()
    print(extra_bytes(args.way, LayerShape(args.heads, args.tokens, args.size)))


if __name__ == "__main__":
    main()
