"""Kernels are used on a device only after a small layer came out right there."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from eah import EAHConfig, operators, triton_host, triton_trial
from eah.method import Columns
from eah.visibility import Visibility

CPU = torch.device("cpu")


@pytest.fixture
def kernels(
    monkeypatch: pytest.MonkeyPatch, interpreted: Callable[..., Any]
) -> Callable[..., None]:
    """Return a function that lets a kernel's result be changed; all run in the interpreter."""
    changes: dict[str, Callable[[Any], Any]] = {}

    def run(name: str, *args: Any, **kwargs: Any) -> Any:
        found = interpreted(name, *args, **kwargs)
        return changes[name](found) if name in changes else found

    def by(name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: run(name, *args, **kwargs)

    monkeypatch.setattr(triton_trial, "column_sums", by("column_sums"))
    heads = SimpleNamespace(choose=by("choose"), share=by("share"))
    monkeypatch.setattr(triton_trial, "head_kernels", lambda: heads)
    return changes.__setitem__


def test_prompts_of_any_length_need_one_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[int] = set()

    def runs(device: torch.device, dtype: torch.dtype, size: int) -> bool:
        asked.add(size)
        return False

    def on_a_gpu(tensor: torch.Tensor, *size: int) -> bool:
        fake: Any = SimpleNamespace(
            device=torch.device("cuda:0"), dtype=tensor.dtype, shape=tensor.shape
        )
        return triton_host.is_usable(fake, *size)

    monkeypatch.setattr(triton_host, "_runs", runs)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(operators, "is_usable", on_a_gpu)
    for keys in (20, 50):
        query, image = torch.randn(1, 2, keys, 8), torch.ones(1, keys, dtype=torch.bool)
        sums = operators.image_sums(query, query, Visibility(), scaling=1.0, image=image)
        operators.choose_head(sums, image, EAHConfig())

    assert asked == {8, triton_host.LEAST_D}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("size", [8, 128])
def test_right_kernels_pass(kernels: Any, dtype: torch.dtype, size: int) -> None:
    triton_trial.try_kernels(CPU, dtype, size)


def _one_more(columns: Columns) -> Columns:
    columns.attention[0, 2, 40] += 0.02
    return columns


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("column_sums", _one_more, "wrong sums of attention"),
        ("column_sums", lambda c: c._replace(rows=c.rows + 1), "wrong sums of rows"),
        ("choose", lambda c: c._replace(head=(c.head + 1) % 4), "wrong counts or head"),
        ("choose", lambda c: c._replace(counts=c.counts - 1), "wrong counts or head"),
        ("share", lambda s: (s[0], s[1].flip(2)), "a wrong head is shared"),
    ],
)
def test_wrong_kernels_are_named_and_left_alone(
    kernels: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    change: Callable[[Any], Any],
    said: str,
) -> None:
    kernels(name, change)
    monkeypatch.setattr(triton_host, "find_spec", lambda _: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))

    assert not triton_host._runs.__wrapped__(CPU, torch.float32, 8)
    assert f"fails on cpu: {said}" in caplog.text
