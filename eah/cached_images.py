"""Image tokens that went into a KV cache, for passes that go on behind it.

Shared by the library and the drop-in file. Needs torch alone.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch


class CachedImages:
    """Image tokens by cache, kept for as long as the cache lives.

    A cache is an object of transformers', or a tuple of tensors, which is known by its first one.
    """

    def __init__(self) -> None:
        """Start with no cache."""
        self._kept: dict[int, tuple[Any, torch.Tensor]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles know no cache."""
        return CachedImages, ()

    def keep(self, past: Any, image: torch.Tensor) -> None:
        """Remember the image tokens, (B, K) bool, that are in a cache."""
        cache = _identity(past)
        if cache is not None:
            key, kept = id(cache), self._kept
            kept[key] = weakref.ref(cache, lambda _: kept.pop(key, None)), image

    def get(self, past: Any) -> torch.Tensor | None:
        """Return the image tokens in a cache, (B, K) bool; None if they are not known."""
        cache = _identity(past)
        found = self._kept.get(id(cache))
        return found[1] if found is not None and found[0]() is cache else None

    def columns(self, past: Any, cached: int, here: torch.Tensor) -> torch.Tensor:
        """Return the image tokens among all keys of a pass, as far as they are known.

        Args:
            past: The cache that the pass goes on behind.
            cached: Its tokens.
            here: Image tokens of the pass, shape (B, Q) bool.
        Returns:
            Shape (B, cached + Q) bool.
        """
        before = torch.zeros(len(here), cached, dtype=torch.bool, device=here.device)
        found = self.get(past) if cached else None
        if found is not None:
            found = found[:, :cached].to(here.device)
            if len(found) != len(here):  # rows were repeated or dropped
                found = found.any(0, keepdim=True)
            before[:, : found.shape[1]] = found
        return torch.cat([before, here], dim=1)


def _identity(past: Any) -> Any:
    """Return what a cache is known by: itself, or the first tensor of a tuple."""
    if not isinstance(past, (tuple, list)):
        return past
    return past[0][0] if past and past[0] is not None else None
