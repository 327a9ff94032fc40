"""What is kept of prompts about the same picture: keys and values up to the picture's end.

Axes: P positions of the prefix, N key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from eah.method import Columns

Heads = dict[int, int]
"""Densest head by layer, -1 for none."""


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """The prefix of the prompts about one picture.

    Attributes:
        layers: Keys and values of each layer, (1, N, P, D).
        heads: What EAH shared when they were computed; empty without EAH.
        sums: What EAH's target layers found in the prefix's rows.
    """

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    heads: Heads
    sums: dict[int, Columns]


@dataclass(slots=True)
class PrefixStore:
    """The prefixes of a few pictures under one method.

    Attributes:
        prompts: Prompts that were answered.
        prefills: Prefixes that were computed for them.
        passes: Forward passes that this took, besides those of the answers.
    """

    prompts: int = 0
    prefills: int = 0
    passes: int = 0
    _kept: dict[Hashable, list[CachedPrefix]] = field(default_factory=dict)

    @property
    def reused(self) -> int:
        """Prompts that went on behind a prefix that was computed for another one."""
        return self.prompts - self.prefills

    def of(self, picture: Hashable) -> list[CachedPrefix]:
        """Return the prefixes of a picture, one for each choice of heads that was met."""
        return self._kept.setdefault(picture, [])

    def keep(self, pictures: Collection[Hashable]) -> None:
        """Forget all other pictures."""
        self._kept = {
            picture: prefixes
            for picture, prefixes in self._kept.items()
            if (picture.picture if isinstance(picture, Noised) else picture) in pictures
        }


class Noised(NamedTuple):
    """A picture under noise, which has a prefix of its own."""

    picture: Hashable


class Sharing(NamedTuple):
    """Which prompts of a batch are about the same picture, and where their prefixes are kept."""

    pictures: Sequence[Hashable]
    store: PrefixStore

    def with_noised(self) -> Sharing:
        """Return the same for a batch that is followed by itself about noised pictures."""
        return Sharing([*self.pictures, *map(Noised, self.pictures)], self.store)
