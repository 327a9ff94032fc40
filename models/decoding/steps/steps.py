"""The decode steps of a model, by layout: built when they pay off.

Axes: R batch rows, S prompt positions, V vocabulary.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import torch

from eah.find import attention_modules
from models.decoding.attention_replacement import kernel_name
from models.decoding.steps.buffers import Buffers, Layout, layout_of
from models.decoding.steps.plain import copy_plain
from models.decoding.steps.stand_in import GenerateCall, stand_in_for
from models.decoding.steps.step import DecodeStep
from models.errors import ModelError

KEPT: Final = 4  # layouts whose buffers are kept
# A capture takes as long as a few steps. For shorter answers it pays off from the second batch on.
LONG: Final = 32
# Allowed difference between a step's scores and the model's own, relative to their spread.
HALF: Final = 0.1
TOLERANCE: Final = {torch.float32: 1e-3}


class DecodeSteps:
    """The decode steps of one model.

    Attributes:
        compiles: Whether torch.compile makes them.
        is_required: Whether it is an error if they can't be made.
        taken: Number of steps run, to count forward passes.
        note: Why no more steps are made; None while they are.
    """

    def __init__(
        self,
        model: Any,
        *,
        compiles: bool = False,
        captures: bool = True,
        is_required: bool = False,
    ) -> None:
        """Copy a language model, without EAH.

        Args:
            model: The model, with or without EAH enabled.
            compiles: Whether torch.compile makes the steps, which takes a minute for 32 layers.
            captures: Whether they are captured as CUDA graphs.
            is_required: Whether it is an error if that fails; otherwise the model decodes without
                them.
        """
        self.taken = 0
        self.note: str | None = None
        self._plain = copy_plain(model)
        self.compiles, self.is_required = compiles, is_required
        self._captures = captures
        self._kept: dict[Layout, DecodeStep] = {}
        self._seen: set[Layout] = set()
        kernel = kernel_name(next(iter(attention_modules(model).values())))
        self._additive = next(model.parameters()).dtype if kernel == "eager" else None

    def make_stand_in(self, model: Any, new_tokens: int) -> Any:
        """Return a model whose `generate` decodes by these steps, once.

        Args:
            model: The language model, with the hooks of the batch.
            new_tokens: Most tokens of an answer.
        """
        return stand_in_for(model, GenerateCall(self, model, new_tokens))

    def forget(self) -> None:
        """Free all buffers."""
        self._kept.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def stop(self) -> bool:
        """Free all buffers and make no more; return whether there were any."""
        if not self._kept:
            return False
        self._give_up("they do not fit into memory together with the batches")
        return True

    def step_of(self, past: Any, mask: torch.Tensor, new_tokens: int) -> DecodeStep | None:
        """Return a step that continues after a prefill; None if it would not pay off.

        Args:
            past: The prefill's cache.
            mask: 1 at the prompts' tokens, (R, S).
            new_tokens: Most tokens of an answer.
        Raises:
            ModelError: If the step can't be made, and it is required.
        """
        if self.note is not None or new_tokens < 2:
            return None
        layout = layout_of(past, mask, new_tokens)
        is_new = layout not in self._seen
        self._seen.add(layout)
        if is_new and new_tokens < LONG and not self.is_required:
            return None
        step = self._fill_step(layout, past, mask)
        if step is None and self._kept:  # it may fit once the other buffers are freed
            self.forget()
            step = self._fill_step(layout, past, mask)
        if step is not None:
            self._kept[layout] = step  # the most recently used one comes last
        elif self.note is None:
            self._give_up("they do not fit into memory together with the batch")
        return step

    def _fill_step(self, layout: Layout, past: Any, mask: torch.Tensor) -> DecodeStep | None:
        """Return a step for a prefill; None if it does not fit into memory or can't be made."""
        try:
            return self._make_step(layout, past, mask)
        except torch.OutOfMemoryError:
            return None
        except ModelError:
            raise
        except Exception as error:  # compilers raise many types; so do operators that wait
            reason = (str(error).splitlines() or [type(error).__name__])[0]
        self._give_up(f"they can't be made ({reason:.200})")
        return None

    def _make_step(self, layout: Layout, past: Any, mask: torch.Tensor) -> DecodeStep:
        step = self._kept.pop(layout, None)
        if step is not None:
            step.buffers.fill(past, mask)
            return step
        while len(self._kept) >= KEPT:
            del self._kept[next(iter(self._kept))]
        buffers = Buffers(layout, past, mask.device, self._additive)
        step = DecodeStep(self._plain, buffers, compiles=self.compiles)
        buffers.fill(past, mask)
        if self._captures:
            step.capture()
        return step

    def agree(self, scores: torch.Tensor, expected: torch.Tensor) -> bool:
        """Compare a step's scores with the model's own; if they differ, give up fast steps.

        Args:
            scores: The step's scores, (R, 1, V).
            expected: The model's scores.
        Raises:
            ModelError: If they differ by more than rounding, and steps are required.
        """
        expected = expected.float()
        counted = expected > torch.finfo(scores.dtype).min / 2  # the others are excluded tokens
        if not bool(counted.any()):
            return False  # nothing to compare: the model runs this step itself
        off = (scores.float() - expected)[counted].abs().max()
        difference = float(off / expected[counted].std())
        if difference <= TOLERANCE.get(scores.dtype, HALF):
            return True
        self._give_up(
            f"their scores differ from {type(self._plain).__name__}'s own by {difference:.2g} of "
            "the spread of scores"
        )
        return False

    def _give_up(self, reason: str) -> None:
        """Continue without fast steps.

        Raises:
            ModelError: If they are required.
        """
        if self.is_required:
            raise ModelError(f"decode steps on fixed buffers: {reason}; leave out --compile")
        self.note = reason
        self.forget()
        print(
            f"note: the model decodes by itself, without fixed buffers: {reason}", file=sys.stderr
        )
