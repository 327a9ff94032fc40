"""What the tests of the package share: the Triton kernels on a CPU."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from eah import triton_host
from eah.method import Columns


@pytest.fixture(scope="session")
def kernel(interpreted: Callable[..., Any]) -> Callable[..., Columns]:
    """Return `triton_host.column_sums` in Triton's interpreter."""
    return functools.partial(interpreted, "column_sums")


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Callable[..., Any]]:
    """Return a function that runs a kernel by name in Triton's interpreter, in its own process.

    Triton reads the switch TRITON_INTERPRET once, when it is imported, and other tests may have
    imported it.
    """
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            patch.setenv("OMP_NUM_THREADS", "1")
            assert pool.submit(os.getenv, "TRITON_INTERPRET").result() == "1"

        def run(name: str, *args: Any, **kwargs: Any) -> Any:
            return pool.submit(_run_kernel, name, *args, **kwargs).result()

        yield run


def _run_kernel(name: str, *args: Any, **kwargs: Any) -> Any:
    module = triton_host if name == "column_sums" else triton_host.head_kernels()
    return getattr(module, name)(*args, **kwargs)


@pytest.fixture
def uncompiled_flex(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run flex attention and its masks by torch's own code: compiling fails on some CPUs."""

    def run(*tensors: torch.Tensor, training: bool = False, **kwargs: Any) -> Any:
        return flex_attention(*tensors, **kwargs)

    def make_mask(*args: Any, _compile: bool = False, **kwargs: Any) -> BlockMask:
        return create_block_mask(*args, **kwargs)

    name = "transformers.integrations.flex_attention.compile_friendly_flex_attention"
    monkeypatch.setattr(name, run)
    monkeypatch.setattr("transformers.masking_utils.create_block_mask", make_mask)
