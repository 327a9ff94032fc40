"""Cached prefixes: prompts with the same first tokens, such as six questions about one picture.

The sum of a column over a prompt's rows is the sum over the prefix's rows plus the sum over the
rest, and the prefix's rows do not depend on later tokens. So a target layer stores the prefix's
sums when it runs whole prompts, and adds them when it runs the rest on a cached prefix: counts and
head are those of the whole prompt.

The keys and values cached after a target layer depend on the head that it shared. Code that reuses
them must check that the chosen head is the one that they were computed with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.nn import functional

from eah.method import Columns
from eah.visibility import Visibility

Count = Callable[[torch.Tensor, Visibility], Columns]
"""Sums columns for queries (B, H, Q, D) and their visibility; the keys are bound."""


@dataclass(slots=True)
class SharedPrefix:
    """The first tokens of a batch of prompts, and the target layers' sums over their rows.

    Attributes:
        length: Tokens of the prefix, the same in all prompts.
        sums: By layer, over the prefix's rows and for its columns, (B, H, length) and (B, length).
            A pass over whole prompts fills them; a pass over the rest uses them.
    """

    length: int
    sums: dict[int, Columns] = field(default_factory=dict)

    def column_sums(
        self, layer: int, query: torch.Tensor, visibility: Visibility, count: Count
    ) -> Columns:
        """Return the sums over all rows of the prompts, the prefix's included.

        Args:
            layer: Layer index.
            query: Of whole prompts, or of the tokens after the cached prefix, shape (B, H, Q, D).
            visibility: Visible keys of the query's rows.
            count: Sums rows.
        """
        if visibility.offset == 0:
            first = count(query[:, :, : self.length], visibility.of_rows(0, self.length))
            self.sums[layer] = Columns(*(part[..., : self.length].clone() for part in first))
            query = query[:, :, self.length :]
            visibility = visibility.of_rows(self.length, self.length + query.shape[2])
        return self._add_prefix_sums(self.sums[layer], count(query, visibility))

    def _add_prefix_sums(self, first: Columns, rest: Columns) -> Columns:
        """Return sums (B, length) plus (B or B * beams, K), the first padded and repeated."""
        repeats = len(rest.rows) // len(first.rows)
        pad = (0, rest.rows.shape[-1] - self.length)
        return Columns(
            *(
                functional.pad(part.repeat_interleave(repeats, dim=0), pad) + more
                for part, more in zip(first, rest, strict=True)
            )
        )
