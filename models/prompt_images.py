"""Positions of the image tokens of prompts in a `with` block, for methods that change attention.

Set once per batch, for the thread (more exactly: the context) that enters the block.

Axes: B prompts, S prompt positions, R batch rows (prompts, and their beams), Q tokens of a pass,
K keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch.nn import functional

from eah.scoped_values import ScopedValues


class PromptImages:
    """The image tokens of a batch of whole prompts.

    Attributes:
        mask: True at image tokens, shape (B, S).
        prefix: Number of positions at the start of all prompts that may be run separately.
        starts: Position of each prompt's first image token; S for a prompt without any.
        stops: Position after each prompt's last image token; S likewise.
        marks: Tokens that a method marked, by layer, (B, S) bool each; those of a cached prefix
            are stored with it.
        pass_marks: The same for the tokens of the current pass, (R, Q) bool, until their positions
            are known.
    """

    def __init__(self, mask: torch.Tensor, prefix: int = 0) -> None:
        """Read a mask, which is copied to the CPU once."""
        self.mask, self.prefix = mask, prefix
        self.starts: list[int] = []
        self.stops: list[int] = []
        self.marks: dict[int, torch.Tensor] = {}
        self.pass_marks: dict[int, torch.Tensor] = {}
        for row in mask.cpu():
            places = row.nonzero()[:, 0].tolist() or [len(row)]
            self.starts.append(places[0])
            self.stops.append(min(places[-1] + 1, len(row)))
        self._padded: dict[tuple[int, int, torch.device], torch.Tensor] = {}
        self._tensors: dict[tuple[tuple[int, ...], int, torch.device], torch.Tensor] = {}

    @property
    def length(self) -> int:
        """Positions of the prompts, S; tokens from there on are an answer's."""
        return int(self.mask.shape[1])

    def key_mask(self, rows: int, keys: int, device: torch.device) -> torch.Tensor:
        """Return True at image tokens among all keys of a pass, shape (R, K)."""
        wanted = rows, keys, device
        if wanted not in self._padded:
            mask = self.repeat_for_beams(self.mask, rows).to(device)
            # All layers of a pass ask for the same.
            self._padded = {wanted: functional.pad(mask, (0, keys - self.length))}
        return self._padded[wanted]

    def tensor(self, values: Sequence[int], rows: int, device: torch.device) -> torch.Tensor:
        """Return a number of each prompt for its beams, (R,); copied to a device once."""
        wanted = tuple(values), rows, device
        if wanted not in self._tensors:
            self._tensors[wanted] = self.repeat_for_beams(torch.tensor(values, device=device), rows)
        return self._tensors[wanted]

    def store_marks(self, layer: int, offset: int) -> None:
        """Move the marks of the current pass to their positions in the prompts.

        Args:
            layer: Layer index.
            offset: Position of the pass's first token; an answer's tokens are not marked.
        """
        seen = self.pass_marks.pop(layer, None)
        if seen is None or offset >= self.length:
            return
        if layer not in self.marks:
            if offset:  # the prompt's first tokens were not marked
                return
            self.marks[layer] = torch.zeros_like(self.mask, device=seen.device)
        kept = seen[:: len(seen) // len(self.mask), : self.length - offset]  # a row of each prompt
        self.marks[layer][:, offset : offset + kept.shape[1]] = kept

    def repeat_for_beams(self, values: torch.Tensor, rows: int) -> torch.Tensor:
        """Return values of each prompt, (B, ...), for its beams, (R, ...)."""
        return values.repeat_interleave(rows // len(self.mask), dim=0)


_said: Final[ScopedValues[PromptImages]] = ScopedValues("prompt_images")


@contextmanager
def prompt_images(mask: torch.Tensor | None, prefix: int = 0) -> Iterator[PromptImages | None]:
    """Set the mask of image tokens of whole prompts, (B, S) bool; None changes nothing."""
    if mask is None:
        yield current_images()
        return
    images = PromptImages(mask, prefix)
    with _said.scope(images):
        yield images


def current_images() -> PromptImages | None:
    """Return the image tokens set by the innermost block of this thread."""
    said = _said.values()
    return said[-1] if said else None
