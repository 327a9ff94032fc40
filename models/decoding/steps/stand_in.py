"""The model that `generate` is given in the place of another one, so that it decodes by fast steps.

transformers' `generate` goes on choosing tokens. What it takes for the model runs the prefill as
the model does, so that EAH and shared prefixes are what they are without it. Then keys and values
are copied into fixed buffers, and every decode step is one call that the host hardly feels.

Axes: R batch rows, S prompt positions, V vocabulary.
"""

from __future__ import annotations

from functools import cache, wraps
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers.modeling_outputs import CausalLMOutputWithPast

from models.decoding.steps.plain import unhooked

if TYPE_CHECKING:
    from models.decoding.steps.step import DecodeStep
    from models.decoding.steps.steps import DecodeSteps

TURN: Final = "_turn"  # attribute of the stand-in


class Turn:
    """One call of `generate`."""

    def __init__(self, steps: DecodeSteps, model: Any, new_tokens: int) -> None:
        """Take the model that is stood in for, with the hooks of the batch."""
        self._steps, self._model, self._new_tokens = steps, model, new_tokens
        self._is_begun = False
        self.step: DecodeStep | None = None
        self._prompt: tuple[Any, torch.Tensor] | None = None  # cache and mask, while they are used

    def forward(self, arguments: dict[str, Any]) -> Any:
        """Run a pass that `generate` asks for."""
        if not self._is_begun:
            self._is_begun = True
            return self._prefill(arguments)
        return self._model(**arguments) if self.step is None else self._decode(arguments)

    def _prefill(self, arguments: dict[str, Any]) -> Any:
        """Run the model, and copy its keys into buffers where that pays."""
        output = self._model(**arguments)
        past, mask = output.past_key_values, arguments.get("attention_mask")
        if mask is None:  # transformers leaves out a mask that hides nothing
            embeds = arguments["inputs_embeds"]
            mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        self.step = self._steps.step_of(past, mask, self._new_tokens)
        if self.step is not None:
            self._prompt = past, mask
            self._free_checked()
        return output

    def _decode(self, arguments: dict[str, Any]) -> Any:
        """Return the scores behind a token; the first ones of a step are compared."""
        assert self.step is not None, "a decode step comes behind a prefill"
        token = arguments["input_ids"]
        scores = self.step.run(token)
        if self.step.is_checked:
            self._steps.taken += 1  # else the model's own pass is the one that is counted
            return CausalLMOutputWithPast(logits=scores)
        assert self._prompt is not None, "an unchecked step has its prompt's keys"
        past, mask = self._prompt
        own = self._model(
            input_ids=token,
            attention_mask=torch.cat([mask, torch.ones_like(token)], dim=1),
            position_ids=mask.sum(-1, keepdim=True),
            past_key_values=past,
            use_cache=True,
        )
        self.step.is_checked = self._steps.agree(scores, own.logits)
        if not self.step.is_checked:
            self.step = self._prompt = None  # the model goes on, behind its own keys
            return own
        self._free_checked()
        return CausalLMOutputWithPast(logits=scores)

    def _free_checked(self) -> None:
        """Free the prefill's keys, which `generate` holds, once nothing needs them any more."""
        if self.step is not None and self.step.is_checked and self._prompt is not None:
            self._prompt[0].layers.clear()
            self._prompt = None


def stand_in(model: Any, turn: Turn) -> Any:
    """Return what looks like a model to `generate`, and runs what a turn says."""
    found = unhooked(model)
    cls: Any = type(model)
    found.__class__ = _class_for(cls)
    found.__dict__[TURN] = turn
    return found


@cache
def _class_for(cls: Any) -> Any:
    """Return a subclass of a model's class whose passes are a turn's."""

    @wraps(cls.forward)
    def forward(self: Any, **arguments: Any) -> Any:
        return self.__dict__[TURN].forward(arguments)

    @wraps(cls.prepare_inputs_for_generation)
    def prepare_inputs_for_generation(self: Any, input_ids: torch.Tensor, **arguments: Any) -> Any:
        if self.__dict__[TURN].step is None:
            return cls.prepare_inputs_for_generation(self, input_ids, **arguments)
        return {"input_ids": input_ids[:, -1:]}

    own = {
        "__module__": cls.__module__,
        "forward": forward,
        "prepare_inputs_for_generation": prepare_inputs_for_generation,
    }
    return type(cls.__name__, (cls,), own)
