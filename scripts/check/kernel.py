"""Compare the Triton kernels' sums, sink counts and heads with the reference's, on a GPU.

    python scripts/check/kernel.py
    TRITON_INTERPRET=1 python scripts/check/kernel.py --device cpu --tiny

The inputs are random; the means of their image columns are on both sides of every preset's
threshold. A column whose mean is within one rounding of the threshold may be a sink for one and
none for the other: such columns are listed. Any other difference ends the command with status 1.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch

from eah import EAHConfig
from eah.method import Columns, choose, column_sums
from eah.settings import PRESETS
from eah.triton_host import column_sums as kernel_sums
from eah.triton_host import is_usable
from eah.visibility import Visibility
from eval.command import finish
from eval.errors import EvaluationError
from eval.output.table import render

HEADER: Final = ("S", "dtype", "H/N", "padded", "largest difference", "near", "excused", "result")
TOKENS: Final = (600, 640, 1024, 2048, 4096, 8192)
IMAGE: Final = (34, 610)  # LLaVA-1.5's, after the padding, cut where the prompt is shorter
# Of a sum of weights exp(x), x down to -30, relative to it: exp makes 4e-6 of the rounding of x.
FLOAT32_ROUNDING: Final = 2e-5


@dataclass(frozen=True, slots=True)
class Setup:
    """What the inputs are like."""

    tokens: int
    dtype: torch.dtype
    kv_heads: int
    is_padded: bool
    heads: int = 32
    size: int = 128


@dataclass(frozen=True, slots=True)
class Inputs:
    """One layer's inputs at prefill."""

    query: torch.Tensor  # (B, H, S, D)
    key: torch.Tensor  # (B, N, S, D)
    visibility: Visibility
    image: torch.Tensor  # (B, S)


@dataclass(slots=True)
class Result:
    """What was found for one setup, over all presets.

    Attributes:
        setup: What the inputs were like.
        largest: Largest relative difference between two sums.
        near: Number of columns within one rounding of a threshold.
        excused: Differences in such columns.
        failures: All other differences.
    """

    setup: Setup
    largest: float = 0.0
    near: int = 0
    excused: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def setups(*, tiny: bool = False) -> Iterator[Setup]:
    """Yield what is compared."""
    shape = {"heads": 4, "size": 16} if tiny else {"heads": 32, "size": 128}
    dtypes = (torch.float32, torch.bfloat16)
    for tokens, dtype, group, is_padded in itertools.product(
        (80,) if tiny else TOKENS, dtypes, (1, 4), (False, True)
    ):
        yield Setup(tokens, dtype, shape["heads"] // group, is_padded, **shape)


def make_inputs(setup: Setup, device: torch.device, seed: int = 0) -> Inputs:
    """Return two prompts; their image columns get from next to no attention to most of it."""
    generator = torch.Generator().manual_seed(seed)
    tokens, size = setup.tokens, setup.size
    padding = torch.tensor([tokens // 8 if setup.is_padded else 0, 0])[:, None]  # (B, 1)
    column = torch.arange(tokens)[None]  # (1, S)
    start, stop = padding + min(IMAGE[0], tokens // 8), padding + IMAGE[1]
    image = (column >= start) & (column < stop.clamp(max=tokens - 9))

    query = torch.randn(2, tokens, setup.heads, size, generator=generator).transpose(1, 2)
    key = torch.randn(2, setup.kv_heads, tokens, size, generator=generator)
    # Queries share a direction, and keys have more or less of it: scores of up to +-6.
    strength = 12 * torch.rand(2, setup.kv_heads, tokens, 1, generator=generator) - 6
    query[..., 0] = size**0.5
    key[..., 0] = torch.where(image[:, None], strength.squeeze(-1), -2.0)
    valid = (column >= padding).to(device) if setup.is_padded else None
    return Inputs(
        query.to(device, setup.dtype),
        key.to(device, setup.dtype),
        Visibility(valid=valid),
        image.to(device),
    )


def check(setup: Setup, device: torch.device) -> Result:
    """Compare kernel and reference by every preset."""
    inputs, result = make_inputs(setup, device), Result(setup)
    for name in PRESETS:
        config = EAHConfig.preset(name)
        rounding = setup.dtype if config.rule == "released_code" else None
        ways: dict[str, Any] = {"scaling": setup.size**-0.5, "rounding": rounding}
        attended = (inputs.query, inputs.key, inputs.visibility)
        ours = kernel_sums(*attended, image=inputs.image, **ways)
        theirs = column_sums(*attended, **ways)
        compare(name, config, ours, theirs, inputs.image, sum_tolerance(rounding, device), result)
    return result


def sum_tolerance(rounding: torch.dtype | None, device: torch.device) -> float:
    """Return how far two correct sums of weights may differ, relative to them."""
    return max(FLOAT32_ROUNDING, torch.finfo(rounding).eps if rounding else 0.0)


def compare(
    name: str,
    config: EAHConfig,
    ours: Columns,
    theirs: Columns,
    image: torch.Tensor,
    tolerance: float,
    result: Result,
) -> None:
    """Add the differences between two sums, and between what a rule makes of them, to a result."""
    for kind, one, other in zip(Columns._fields, ours, theirs, strict=True):
        wanted = image[:, None].expand_as(other) if other.dim() == 3 else image
        apart = ((one - other).abs() / other.abs().clamp(min=1e-30))[wanted].max().item()
        result.largest = max(result.largest, apart)
        allowed = 0.0 if kind == "rows" else tolerance
        if not apart <= allowed:  # also if it is nan
            result.failures.append(f"{name}: sums {kind} differ by {apart:.1e}")
    means, limit = means_and_limit(theirs, image, config)
    is_near = ((means - limit).abs() <= tolerance * limit) & image[:, None]
    our_means, our_limit = means_and_limit(ours, image, config)
    differs = ((our_means > our_limit) != (means > limit)) & image[:, None]
    result.near += int(is_near.sum())
    for b, h, y in differs.nonzero().tolist():
        place = f"{name}: batch row {b}, head {h}, column {y}: mean {means[b, h, y]:.9f}"
        (result.excused if is_near[b, h, y] else result.failures).append(place)
    our_choice, choice = choose(ours, image, config), choose(theirs, image, config)
    alike = ~differs.flatten(1).any(1)
    for b in alike.nonzero().flatten().tolist():
        if our_choice.counts[b].tolist() != choice.counts[b].tolist():
            result.failures.append(f"{name}: batch row {b}: counts differ")
        if our_choice.head[b] != choice.head[b]:
            heads = f"{int(our_choice.head[b])}, not {int(choice.head[b])}"
            result.failures.append(f"{name}: batch row {b}: head {heads}")


def means_and_limit(
    columns: Columns, image: torch.Tensor, config: EAHConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a rule compares: column means, (B, H, K), and what they must exceed."""
    if config.rule == "released_code":
        start = image.int().argmax(-1, keepdim=True)  # (B, 1)
        column = torch.arange(image.shape[1], device=image.device)
        divisor = 2 * start + image.sum(-1, keepdim=True) - column  # (B, K)
        columns = columns._replace(rows=divisor)
    unit = torch.ones_like(columns.uniform)
    unit = columns.uniform_means if config.threshold_unit == "uniform" else unit
    assert config.threshold is not None, "presets have a threshold"
    return columns.means, config.threshold * unit[:, None]


def row(result: Result) -> list[str]:
    """Return a result's line of the table."""
    setup = result.setup
    return [
        str(setup.tokens),
        str(setup.dtype).removeprefix("torch."),
        f"{setup.heads}/{setup.kv_heads}",
        "yes" if setup.is_padded else "no",
        f"{result.largest:.1e}",
        str(result.near),
        str(len(result.excused)),
        "differs" if result.failures else "same",
    ]


def obstacle(device: torch.device, *, tiny: bool) -> str | None:
    """Return why nothing can be compared, if so."""
    if find_spec("triton") is None:
        return "Triton is not installed; it comes with PyTorch's CUDA builds for Linux"
    if device.type == "cpu":
        if tiny and os.environ.get("TRITON_INTERPRET") == "1":
            return None
        return "on a CPU, kernels need TRITON_INTERPRET=1 and --tiny"
    if not torch.cuda.is_available():
        return "there is no CUDA device; on a CPU, TRITON_INTERPRET=1 with --device cpu --tiny runs"
    if not is_usable(torch.zeros(1, 1, 1, 128, device=device)):
        return f"Triton does not run on {device}"
    return None


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--device",
        type=torch.device,
        default=torch.device("cuda:0"),
        help="GPU to use (default: cuda:0)",
    )
    parser.add_argument("--tiny", action="store_true", help="toy sizes, for Triton's interpreter")
    return parser.parse_args(arguments)


def run(arguments: Sequence[str] | None = None) -> int:
    """Compare everything and return 0, 1 after a difference, or 2 where nothing can be compared."""
    args = parse(arguments)
    reason = obstacle(args.device, tiny=args.tiny)
    if reason:
        raise EvaluationError(reason)
    results = [check(setup, args.device) for setup in setups(tiny=args.tiny)]
    print(render(HEADER, [row(result) for result in results]))
    for title, kind in (("Within one rounding of the threshold", "excused"), ("Wrong", "failures")):
        lines = [
            f"- {' '.join(row(result)[:4])}: {line}"
            for result in results
            for line in getattr(result, kind)
        ]
        if lines:
            print(f"\n{title}:", *lines, sep="\n")
    return 1 if any(result.failures for result in results) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return finish(Path(sys.argv[0]).stem, lambda: run(arguments), interrupted="run it again")


if __name__ == "__main__":
    sys.exit(main())
