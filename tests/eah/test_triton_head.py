"""The kernels that choose and share against the reference: equal sums, equal counts and heads.

Without a GPU they run in Triton's interpreter (the fixture `interpreted`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from eah import EAHConfig, operators, triton_host
from eah.method import Choice, Columns, choose, share_head
from eah.settings import PRESETS
from tests.eah.cases import make_case

Run = Callable[..., Any]
EXTRA: list[dict[str, Any]] = [{}, {"min_density": 0.25}, {"min_density": 0.75}, {"head": 2}]


def make_sums(batch: int, heads: int, keys: int) -> tuple[Columns, torch.Tensor]:
    """Return random sums and image columns; the last prompt has no image, the first one has ties.

    Sums are multiples of 1/8, numbers of rows powers of 2: means meet thresholds exactly.
    """
    image = torch.rand(batch, keys) < 0.6
    image[-1] = batch == 1
    attention = torch.randint(0, 9, (batch, heads, keys)) / 8
    attention[0, heads // 2] = attention[0, 0]
    rows = 2.0 ** torch.randint(0, 4, (batch, keys))
    rows[:, -1] = 0  # nobody sees the last column
    return Columns(attention, rows * torch.rand(batch, keys), rows), image


def by_kernel(run: Run, columns: Columns, image: torch.Tensor, config: EAHConfig) -> Choice:
    """Return what the kernel chooses."""
    ways = config.rule_arguments
    unit, limits = ways.get("threshold_unit"), (config.head, config.min_density)
    return run("choose", columns, image, config.rule, ways["threshold"], unit, *limits)


def assert_choices(run: Run, device: str, shape: tuple[int, int, int]) -> None:
    """Compare every preset, with every further setting, at thresholds that means meet exactly."""
    columns, image = make_sums(*shape)
    columns, image = Columns(*(part.to(device) for part in columns)), image.to(device)
    chosen = set()
    for name in PRESETS:
        for extra in EXTRA:
            config = replace(EAHConfig.preset(name), threshold=0.125, **extra)
            found, expected = by_kernel(run, columns, image, config), choose(columns, image, config)
            assert torch.equal(found.counts, expected.counts), (name, extra)
            assert torch.equal(found.head, expected.head), (name, extra)
            chosen |= set(found.head.tolist())
    assert len(chosen) > 1


@pytest.mark.parametrize("shape", [(1, 4, 40), (3, 6, 130), (2, 32, 300)])
def test_counts_and_heads_are_the_references(interpreted: Run, shape: tuple[int, int, int]) -> None:
    assert_choices(interpreted, "cpu", shape)


def test_no_column_of_text_is_a_sink_and_prompts_without_image_choose_none(
    interpreted: Run,
) -> None:
    columns, image = make_sums(2, 4, 40)

    found = by_kernel(interpreted, columns, torch.zeros_like(image), EAHConfig(head=1))

    assert found.head.tolist() == [-1, -1]
    assert not found.counts.any()


def test_sums_of_any_strides(interpreted: Run) -> None:
    columns, image = make_sums(2, 4, 40)
    config = EAHConfig(threshold=0.125)
    strange = Columns(
        columns.attention.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        columns.uniform[:, None].expand(2, 3, 40)[:, 1],
        columns.rows.T.contiguous().T,
    )

    found = by_kernel(interpreted, strange, image.T.contiguous().T, config)

    assert torch.equal(found.counts, choose(columns, image, config).counts)


@pytest.mark.parametrize("size", [8, 24])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("heads", [(4, -1, 0), (-1, -1, -1)])
def test_shared_queries_and_keys_are_the_references_bit_for_bit(
    interpreted: Run, size: int, kv_heads: int, heads: tuple[int, ...]
) -> None:
    case = make_case(3, 6, kv_heads, 20, cached=150, size=size)
    query = case.query.transpose(1, 2).contiguous().transpose(1, 2)
    cache = torch.full((3, kv_heads, 200, size), torch.nan)
    cache[:, :, :170] = case.key
    head = torch.tensor(heads)

    part = query[..., :5], case.key[..., :5]
    for one, other in ((query, case.key), (query, cache[:, :, :170]), part):
        found = interpreted("share", one, other, head)

        expected = share_head(one, other, head)
        assert all(map(torch.equal, found, expected))
    assert interpreted("share", query, case.key, head)[0].stride() == query.stride()


def test_operators_take_torchs_code_where_the_kernels_do_not_run() -> None:
    columns, image = make_sums(3, 6, 50)
    for name in PRESETS:
        config = replace(EAHConfig.preset(name), threshold=0.125, min_density=0.25)
        found, expected = (
            operators.choose_head(columns, image, config),
            choose(columns, image, config),
        )
        assert torch.equal(found.head, expected.head)
        assert torch.equal(found.counts, expected.counts)


@pytest.mark.parametrize("heads", [(4, 2, 0), (4, -1, 0)])
def test_on_a_cpu_shared_heads_are_the_references(heads: tuple[int, ...]) -> None:
    case = make_case(3, 6, 2)

    found = operators.share_head(case.query, case.key, torch.tensor(heads))

    assert all(map(torch.equal, found, share_head(case.query, case.key, torch.tensor(heads))))


def test_operators_tell_torch_the_truth_about_themselves() -> None:
    columns, image = make_sums(2, 4, 20)
    case = make_case(2, 4, 2)
    rule = "scale_free", 1.0, "uniform", None, 0.5
    query = case.query.transpose(1, 2).contiguous().transpose(1, 2)

    torch.library.opcheck(operators._choose_head, (*columns, image, *rule))
    torch.library.opcheck(operators._share_head, (query, case.key, torch.tensor([1, -1])))


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(1, 4, 40), (3, 6, 130), (2, 32, 640)])
def test_compiled_choices(shape: tuple[int, int, int]) -> None:
    kernels = triton_host.head_kernels()

    assert_choices(lambda name, *given: getattr(kernels, name)(*given), "cuda", shape)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_sharing(dtype: torch.dtype) -> None:
    case = make_case(3, 6, 2, 130, size=24)
    query, key = case.query.to("cuda", dtype), case.key.to("cuda", dtype)
    head = torch.tensor([4, -1, 0], device="cuda")

    found = operators.share_head(query, key, head)

    assert all(map(torch.equal, found, share_head(query, key, head)))


def test_a_head_that_does_not_lie_together_is_read_as_it_is(interpreted: Run) -> None:
    query, key = torch.randn(3, 4, 6, 8), torch.randn(3, 2, 6, 8)
    head = torch.tensor([[1, 9], [3, 9], [-1, 9]])[:, 0]
    assert head.stride() == (2,)

    found = interpreted("share", query, key, head)

    assert all(map(torch.equal, found, share_head(query, key, head)))


def test_a_density_that_equals_the_bound_is_not_below_it(interpreted: Run) -> None:
    image = torch.ones(1, 8, dtype=torch.bool)
    attention = torch.zeros(1, 2, 8)
    attention[0, 1, :2] = 1.0
    columns = Columns(attention, torch.ones(1, 8), torch.ones(1, 8))

    for bound, head in ((0.25, 1), (0.2500001, -1)):
        config = replace(EAHConfig(), threshold=0.5, min_density=bound)
        found = by_kernel(interpreted, columns, image, config)
        assert found.head.tolist() == choose(columns, image, config).head.tolist() == [head]
