"""Image tokens that are in a KV cache, for passes that continue from it.

Shared by the library and the drop-in file. Needs torch only.
"""

from __future__ import annotations

import weakref
from typing import Any, Final

import torch

from eah.errors import EAHStateError

IMAGE: Final = "eah_image"  # attribute of a cache: its image tokens, (B, K) bool


class CachedImages:
    """Image tokens by cache.

    A cache object of transformers stores them as an attribute, which its copies keep. A tuple of
    tensors is identified by its first tensor, while that is alive.
    """

    def __init__(self) -> None:
        """Start with no cache."""
        self._kept: dict[int, tuple[Any, torch.Tensor]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles start empty."""
        return CachedImages, ()

    def keep(self, past: Any, image: torch.Tensor) -> None:
        """Store the image tokens, (B, K) bool, of a cache."""
        if past is None:
            return
        if not isinstance(past, (tuple, list)):
            setattr(past, IMAGE, image)
        elif past and past[0] is not None:
            key, kept = id(past[0][0]), self._kept
            kept[key] = weakref.ref(past[0][0], lambda _: kept.pop(key, None)), image

    def get(self, past: Any) -> torch.Tensor | None:
        """Return the image tokens in a cache, (B, K) bool; None if they are not known."""
        if not isinstance(past, (tuple, list)):
            return getattr(past, IMAGE, None)
        if not past or past[0] is None:
            return None
        found = self._kept.get(id(past[0][0]))
        return found[1] if found is not None and found[0]() is past[0][0] else None

    def carry(self, past: Any, output: Any) -> None:
        """Copy the image tokens of the tuple that a pass received to the one that it returns."""
        image = self.get(past) if isinstance(past, (tuple, list)) else None
        if image is not None:
            self.keep(cache_of(output), image)

    def columns(self, past: Any, cached: int, here: torch.Tensor) -> torch.Tensor:
        """Return the image tokens among all keys of a pass.

        Args:
            past: The cache that the pass continues from.
            cached: Number of its tokens.
            here: Image tokens of the pass, shape (B, Q) bool.
        Returns:
            Shape (B, cached + Q) bool.
        Raises:
            EAHStateError: If an image follows a cache whose image tokens are not known.
        """
        before = torch.zeros(len(here), cached, dtype=torch.bool, device=here.device)
        found = self.get(past) if cached else None
        if cached and found is None and bool(here.any()):
            raise EAHStateError(
                f"an image follows {cached} cached tokens that EAH did not see, so it is not known "
                "whether there are image tokens among them; say where all image tokens are with "
                "image_tokens(), or pass the whole prompt at once"
            )
        if found is not None:
            found = found[:, :cached].to(here.device)
            if len(found) != len(here):  # rows were repeated or dropped
                found = found.any(0, keepdim=True)
            before[:, : found.shape[1]] = found
        return torch.cat([before, here], dim=1)


def cache_of(output: Any) -> Any:
    """Return the cache in what a model returns, a tuple or not; None without one."""
    if not isinstance(output, tuple):
        return getattr(output, "past_key_values", None)
    for part in output:
        is_tuple = isinstance(part, (tuple, list)) and part and isinstance(part[0], (tuple, list))
        if is_tuple or callable(getattr(part, "get_seq_length", None)):
            return part
    return None
