"""Check that the Triton kernels match the reference on a device, by running both.

Axes: B batch, H query heads, N key/value heads, Q queries, D head size.
"""

from __future__ import annotations

import torch

from eah import method
from eah.method import Columns
from eah.triton_host import column_sums, head_kernels
from eah.visibility import Visibility

HEADS, KV_HEADS, QUERIES = 4, 2, 72  # more rows and columns than a block has
IMAGE = slice(8, 64)
# A wrong sum is off by whole weights; tensor cores and exp round far below that.
TOLERANCE = 1e-3


def try_kernels(device: torch.device, dtype: torch.dtype, size: int) -> None:
    """Count, choose and share in a small random layer, twice: by the kernels and by torch.

    Args:
        device: Where the kernels are to run.
        dtype: Of query and key.
        size: Head size D.
    Raises:
        RuntimeError: If the kernels' results differ.
        Exception: Any error of a compiler, a linker or a driver.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    query, key = (
        torch.randn(1, heads, QUERIES, size, generator=generator, device="cpu").to(device, dtype)
        for heads in (HEADS, KV_HEADS)
    )
    image = torch.zeros(1, QUERIES, dtype=torch.bool, device=device)
    image[:, IMAGE] = True
    scaling = size**-0.5
    found = column_sums(query, key, Visibility(), scaling=scaling, image=image)
    expected = method.column_sums(query, key, Visibility(), scaling=scaling)
    for name, one, other in zip(Columns._fields, found, expected, strict=True):
        if not torch.allclose(one[..., IMAGE], other[..., IMAGE], rtol=TOLERANCE, atol=TOLERANCE):
            raise RuntimeError(f"wrong sums of {name}")
    threshold = float(found.means[..., IMAGE].median())
    choice = head_kernels().choose(found, image, "paper", threshold, None, None, 0.0)
    reference = method.paper(found, image, threshold)
    if not all(map(torch.equal, choice[:2], reference[:2])):  # head and counts
        raise RuntimeError("wrong counts or head")
    shared = head_kernels().share(query, key, reference.head)
    if not all(map(torch.equal, shared, method.share_head(query, key, reference.head))):
        raise RuntimeError("a wrong head is shared")
