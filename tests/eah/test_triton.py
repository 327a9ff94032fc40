"""The Triton kernels against the reference and against dense float64.

Without a GPU they run in Triton's interpreter (the fixture `kernel`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from eah import EAHConfig, operators, triton_host, triton_trial
from eah.method import Columns, choose, column_sums
from eah.settings import PRESETS
from eah.visibility import Visibility
from scripts.check.kernel import Setup, check, make_inputs, setups
from tests.eah import oracle
from tests.eah.cases import WAYS, make_case, seen_keys, token_mask, told
from tests.eah.oracle import Prefill

ROOT = Path(__file__).resolve().parents[2]
HALVES = (torch.float16, torch.bfloat16)
Kernel = Callable[..., Columns]

# Blocks are 64 rows and 64 columns.
CASES: dict[str, dict[str, Any]] = {
    "one block and a bit": {"queries": 70, "image": (5, 68)},
    "two whole blocks": {"queries": 128, "image": (60, 70)},
    "less than a block": {"queries": 10},
    "one query": {"queries": 1, "cached": 69, "image": (3, 66)},
    "first query": {"queries": 1, "image": (0, 1)},
    "only image": {"queries": 66, "image": (0, 66)},
    "one image token": {"queries": 66, "image": (64, 65)},
    "grouped heads": {"heads": 6, "kv_heads": 2, "queries": 70, "image": (9, 67)},
    "one kv head": {"kv_heads": 1, "queries": 65, "image": (20, 61)},
    "padded batch": {"batch": 3, "padding": (3, 0, 66), "queries": 130, "image": (2, 64)},
    "cached text": {"queries": 70, "cached": 5, "image": (9, 50)},
    "padding in the cache": {
        "batch": 2, "kv_heads": 2, "queries": 66, "cached": 70, "padding": (7, 0),
        "image": (30, 125),
    },
    "sliding window": {"queries": 135, "window": 20, "image": (3, 129)},
    "sliding window, padded and cached": {
        "batch": 2, "queries": 70, "cached": 65, "window": 66, "padding": (4, 0), "image": (3, 100),
    },
}  # fmt: skip


def exact(
    case: Prefill,
    seen: torch.Tensor,
    tokens: torch.Tensor,
    rounding: torch.dtype | None = None,
) -> Columns:
    """Return the sums from whole maps in float64.

    Args:
        case: The inputs.
        seen: Which keys the rows see, (B, Q, K).
        tokens: Which rows are tokens, (B, Q).
        rounding: What weights are rounded to.
    """
    _, heads, queries, keys = case.shape
    key = case.key.double().repeat_interleave(heads // case.key.shape[1], dim=1)
    scores = case.query.double() @ key.transpose(2, 3) * case.scaling  # (B, H, Q, K)
    if case.bias is not None:
        scores = scores + torch.tensor(case.bias, dtype=torch.float64)
    hidden = ~seen[:, None]
    weights = scores.masked_fill(hidden, -1e300).softmax(-1).masked_fill(hidden, 0.0)
    if rounding is not None:
        weights = weights.to(rounding).double()
    others = torch.arange(queries)[:, None] + case.offset != torch.arange(keys)
    counted = (seen & others & tokens[:, :, None]).double()  # (B, Q, K)
    share = counted / seen.sum(-1, keepdim=True).clamp(min=1)
    return Columns((weights * counted[:, None]).sum(2), share.sum(1), counted.sum(1))


def exact_of(case: Prefill, rounding: torch.dtype | None = None) -> Columns:
    """Return the sums of a case whose rows see what `told` tells."""
    tokens = token_mask(case)[:, case.offset :]
    return exact(case, seen_keys(case)[:, 0], tokens, rounding)


def assert_same(found: Columns, expected: Columns, image: torch.Tensor, **tolerance: float) -> None:
    """Compare image columns, by default with torch's tolerances for float32, and other columns."""
    for one, other in zip(found, expected, strict=True):
        wanted = image[:, None] if one.dim() == 3 else image
        torch.testing.assert_close(one, other.float() * wanted, **tolerance)
    assert torch.equal(found.rows, expected.rows.float() * image)


def assert_case(
    kernel: Kernel, case: Prefill, way: str, device: str = "cpu", **tolerance: float
) -> None:
    """Compare the kernels with the reference and with float64."""
    image, visibility = torch.tensor(case.image), told(case, way)
    query, key = case.query.to(device), case.key.to(device)

    found = kernel(query, key, visibility, scaling=case.scaling, image=image)
    found = Columns(*(part.cpu() for part in found))

    reference = column_sums(case.query, case.key, visibility, scaling=case.scaling)
    assert_same(found, reference, image, **tolerance)
    assert_same(found, exact_of(case), image, **tolerance)


@pytest.mark.parametrize("name", CASES)
def test_sums_of_causal_attention(kernel: Kernel, name: str) -> None:
    assert_case(kernel, make_case(**CASES[name]), "causal")


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("name", ["padded batch", "padding in the cache"])
def test_sums_under_masks(kernel: Kernel, name: str, way: str) -> None:
    assert_case(kernel, make_case(**CASES[name]), way)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_values_of_an_additive_mask_are_part_of_the_scores(
    kernel: Kernel, dtype: torch.dtype
) -> None:
    case = make_case(batch=2, kv_heads=2, padding=(0, 3), queries=70, image=(4, 66))
    bias = torch.randn(70, 70).mul(2).to(dtype)
    case.bias = bias.tolist()
    seen, image = seen_keys(case), torch.tensor(case.image)
    mask = torch.where(seen, bias, torch.finfo(dtype).min)

    found = kernel(case.query, case.key, Visibility(mask=mask), scaling=case.scaling, image=image)

    assert_same(found, exact_of(case), image)


@pytest.mark.parametrize("lowest", [torch.finfo(torch.float32).min, float("-inf")])
@pytest.mark.parametrize("rows", [1, 2])
def test_masks_with_padding_in_the_middle(kernel: Kernel, lowest: float, rows: int) -> None:
    case = make_case(batch=2, queries=70, image=(4, 66))
    tokens = torch.ones(2, 70, dtype=torch.bool)
    tokens[:, 30:40] = False
    tokens[rows - 1 :, 64:67] = False
    tokens = tokens[:rows].expand(2, 70)
    seen = torch.ones(70, 70, dtype=torch.bool).tril() & tokens[:, None]  # (B, Q, K)
    mask = torch.zeros(rows, 1, 70, 70).masked_fill(~seen[:rows, None], lowest)
    image = torch.tensor(case.image)

    found = kernel(case.query, case.key, Visibility(mask=mask), scaling=case.scaling, image=image)

    assert_same(found, exact(case, seen, tokens), image)


def test_a_token_that_sees_no_key_counts_nothing(kernel: Kernel) -> None:
    case = make_case(queries=20)
    seen = torch.ones(1, 20, 20, dtype=torch.bool).tril()
    seen[:, 15] = False
    image, valid = torch.tensor(case.image), torch.ones(1, 20, dtype=torch.bool)
    visibility = Visibility(mask=seen[:, None], valid=valid)

    found = kernel(case.query, case.key, visibility, scaling=case.scaling, image=image)

    assert_same(found, exact(case, seen, valid), image)


@pytest.mark.parametrize("size", [8, 16, 40, 64, 128, 192])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_head_sizes_and_dtypes(kernel: Kernel, size: int, dtype: torch.dtype) -> None:
    case = make_case(heads=2, kv_heads=1, queries=66, image=(1, 65), size=size)
    case.query, case.key = case.query.to(dtype), case.key.to(dtype)

    # Scores of up to 20 have an error of 2e-6, and so have weights.
    assert_case(kernel, case, "causal", rtol=1e-5, atol=1e-5)


def test_query_and_key_of_two_dtypes(kernel: Kernel) -> None:
    case = make_case(queries=20)
    case.key = case.key.half()

    assert_case(kernel, case, "causal")


@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [
        (torch.float32, 1.3e-6),
        (torch.float16, 1e-3),
        # Triton's interpreter cuts off where a GPU rounds: up to one unit in the last place.
        (torch.bfloat16, 2**-7),
    ],
)
def test_weights_are_rounded_before_they_are_summed(
    kernel: Kernel, dtype: torch.dtype, rtol: float
) -> None:
    case = make_case(batch=2, kv_heads=2, padding=(0, 3), queries=70, image=(4, 66))
    image = torch.tensor(case.image)
    ways = {"scaling": case.scaling, "rounding": dtype}

    found = kernel(case.query, case.key, told(case, "causal"), image=image, **ways)

    reference = column_sums(case.query, case.key, told(case, "causal"), **ways)
    assert_same(found, reference, image, rtol=rtol, atol=1e-5)
    assert_same(found, exact_of(case, dtype), image, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("dtype", HALVES)
def test_the_sum_of_one_rounded_weight_is_a_number_of_its_dtype(
    kernel: Kernel, dtype: torch.dtype
) -> None:
    case = make_case(**CASES["one query"])
    image = torch.tensor(case.image)
    ways = {"scaling": case.scaling, "image": image}

    plain = kernel(case.query, case.key, told(case, "causal"), **ways).attention
    found = kernel(case.query, case.key, told(case, "causal"), rounding=dtype, **ways).attention

    assert not torch.equal(plain, plain.to(dtype).float())
    assert torch.equal(found, found.to(dtype).float())


def test_image_tokens_anywhere_and_differently_per_row(kernel: Kernel) -> None:
    case = make_case(batch=3, kv_heads=2, queries=140, image=(0, 1))
    image = torch.rand(3, 140) < 0.3
    image[1] = False
    image[2, :128] = False
    case.image = image.tolist()

    assert_case(kernel, case, "causal")


def test_no_image_at_all_gives_zeros(kernel: Kernel) -> None:
    case = make_case(queries=10)

    found = kernel(
        case.query, case.key, Visibility(), scaling=1.0, image=torch.zeros(1, 10, dtype=torch.bool)
    )

    assert not any(part.any() for part in found)


def test_any_strides(kernel: Kernel) -> None:
    case = make_case(batch=2, kv_heads=2, queries=70, image=(4, 66))
    image = torch.tensor(case.image)
    plain = kernel(case.query, case.key, Visibility(), scaling=case.scaling, image=image)
    cache = torch.full((2, 2, 100, 8), torch.nan)
    cache[:, :, :70] = case.key
    by_size = case.query.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0)
    by_column = image.T.contiguous().T
    mask = seen_keys(case).transpose(2, 3).contiguous().transpose(2, 3)

    for visibility in (Visibility(), Visibility(mask=mask)):
        found = kernel(by_size, cache[:, :, :70], visibility, scaling=case.scaling, image=by_column)

        assert all(map(torch.equal, found, plain))


def compared_means(sums: Columns, image: torch.Tensor, config: EAHConfig) -> torch.Tensor:
    """Return what a preset's rule compares with its threshold, (B, H, K)."""
    if config.rule == "released_code":  # stop - (y - start) of column y of the span [start, stop)
        spans = [row.nonzero().flatten().tolist() for row in image]
        divisor = [[2 * s[0] + len(s) - y for y in range(image.shape[1])] for s in spans]
        return sums.attention / torch.tensor(divisor)[:, None].clamp(min=1)
    return sums.attention / (sums.uniform if config.rule == "scale_free" else sums.rows)[:, None]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("way", ["causal", "bool mask"])
def test_heads_and_counts_of_every_preset(kernel: Kernel, name: str, way: str) -> None:
    case = make_case(2, 6, 2, 75, padding=(6, 0), image=(5, 66))
    case.query, case.key = case.query.half(), case.key.half()
    visibility, image = told(case, way), torch.tensor(case.image)
    config = EAHConfig.preset(name)
    rounding = torch.float16 if config.rule == "released_code" else None
    means = compared_means(exact_of(case, rounding), image, config)
    columns = [means[b, h][image[b]].tolist() for b in range(2) for h in range(6)]
    config = replace(config, threshold=oracle.threshold_with_margin(columns))
    # Means are of 0.01 and right to 1e-6 of it; rounded to float16, to 1e-4 of it.
    assert oracle.margin(columns, config.threshold) > 2e-6
    ways = {"scaling": case.scaling, "rounding": rounding}

    found = choose(kernel(case.query, case.key, visibility, image=image, **ways), image, config)

    expected = choose(column_sums(case.query, case.key, visibility, **ways), image, config)
    assert torch.equal(found.head, expected.head)
    assert torch.equal(found.counts, expected.counts)
    assert found.counts.flatten().tolist() == oracle.sink_counts(columns, config.threshold)
    assert len(set(found.counts[0].tolist())) > 1


@pytest.mark.parametrize("part", ["mask", "valid"])
def test_masks_that_are_too_small_are_refused(kernel: Kernel, part: str) -> None:
    case = make_case(queries=20)
    small = {"mask": torch.ones(1, 1, 20, 19), "valid": torch.ones(1, 19)}[part].bool()
    visibility = Visibility(**{part: small})  # type: ignore[arg-type]

    with pytest.raises(RuntimeError, match="19"):
        kernel(case.query, case.key, visibility, scaling=1.0, image=torch.tensor(case.image))


def test_the_operator_takes_the_sums_of_torch_where_the_kernels_do_not_run() -> None:
    case = make_case(batch=2, kv_heads=2, padding=(0, 3), queries=20, image=(4, 16))
    image, visibility = torch.tensor(case.image), told(case, "causal")
    ways = {"scaling": case.scaling, "rounding": torch.bfloat16}

    found = operators.image_sums(case.query, case.key, visibility, image=image, **ways)

    expected = column_sums(case.query, case.key, visibility, **ways)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("way", WAYS)
def test_the_operator_tells_torch_the_truth_about_itself(way: str) -> None:
    case = make_case(batch=2, kv_heads=2, cached=3, padding=(0, 2), queries=10, image=(4, 9))
    shown = told(case, way)
    shown = (shown.mask, shown.valid, shown.offset, shown.window)
    inputs = (case.query, case.key, torch.tensor(case.image), *shown, case.scaling, None)

    torch.library.opcheck(operators._image_sums, inputs)


def test_importing_the_module_does_not_import_triton() -> None:
    code = "import sys, eah.operators; print('triton' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "False"


def query_on(device: str) -> torch.Tensor:
    """Return what `is_usable` looks at of a query."""
    fake = SimpleNamespace(device=torch.device(device), dtype=torch.float32, shape=(1, 1, 1, 16))
    return fake  # type: ignore[return-value]


def test_the_kernels_are_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_host, "_runs", lambda *_: True)
    monkeypatch.setattr(torch.version, "hip", None)

    assert triton_host.is_usable(query_on("cuda:0"))
    assert not triton_host.is_usable(torch.zeros(1, 1, 1, 16))
    assert not triton_host.is_usable(query_on("mps"))
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert not triton_host.is_usable(query_on("cuda:0"))


def test_without_triton_the_kernels_are_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_host, "find_spec", lambda _: None)

    assert not triton_host._runs.__wrapped__(torch.device("cpu"), torch.float32, 16)


@pytest.mark.parametrize(("capability", "runs"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_old_devices_are_left_to_the_reference(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], runs: bool
) -> None:
    monkeypatch.setattr(triton_host, "find_spec", lambda _: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(triton_trial, "try_kernels", lambda *_: None)

    assert triton_host._runs.__wrapped__(torch.device("cpu"), torch.float32, 16) is runs


def test_a_triton_that_fails_is_named_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> Columns:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(triton_host, "find_spec", lambda _: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(triton_trial, "column_sums", fail)

    assert not triton_host._runs.__wrapped__(torch.device("cpu"), torch.float32, 16)
    assert "Failed to find C compiler" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_compiled_sums(name: str) -> None:
    for way in WAYS:
        # A GPU's exp is right to 1e-6.
        case = make_case(**CASES[name])
        assert_case(triton_host.column_sums, case, way, device="cuda", rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("setup", list(setups()), ids=str)
def test_compiled_counts_and_heads(setup: Setup) -> None:
    result = check(setup, torch.device("cuda"))

    assert not result.failures


@pytest.mark.gpu
def test_compiled_kernels_do_not_wait_and_repeat_bit_for_bit() -> None:
    setup = Setup(600, torch.bfloat16, kv_heads=8, is_padded=True)
    inputs = make_inputs(setup, torch.device("cuda"))

    def run() -> Columns:
        return triton_host.column_sums(
            inputs.query, inputs.key, inputs.visibility, scaling=0.1, image=inputs.image
        )

    first = run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        second = run()
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert all(map(torch.equal, first, second))
