"""A stand-in for a model, with which `generate` decodes by fast steps.

transformers' `generate` still chooses the tokens. The stand-in runs the prefill as the model does,
so EAH and cached prefixes work unchanged. Then keys and values are copied into fixed buffers, and
every decode step is one call with little CPU work.

Axes: R batch rows, S prompt positions, V vocabulary.
"""

from __future__ import annotations

from functools import cache, wraps
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers.modeling_outputs import CausalLMOutputWithPast

from models.decoding.steps.plain import copy_without_hooks

if TYPE_CHECKING:
    from models.decoding.steps.step import DecodeStep
    from models.decoding.steps.steps import DecodeSteps

GENERATE_CALL: Final = "_generate_call"  # attribute of the stand-in


class GenerateCall:
    """The state of one call of `generate`."""

    def __init__(self, steps: DecodeSteps, model: Any, new_tokens: int) -> None:
        """Store the model, with the hooks of the batch."""
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
        """Run the model, and copy its keys into buffers if fast steps pay off."""
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
        """Return the scores after a token; those of a new step are compared with the model's."""
        assert self.step is not None, "a decode step follows a prefill"
        token = arguments["input_ids"]
        scores = self.step.run(token)
        if self.step.is_checked:
            self._steps.taken += 1  # otherwise the model's own pass is counted
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
            self.step = self._prompt = None  # the model continues with its own keys
            return own
        self._free_checked()
        return CausalLMOutputWithPast(logits=scores)

    def _free_checked(self) -> None:
        """Free the prefill's keys, which `generate` still references, once they are not needed."""
        if self.step is not None and self.step.is_checked and self._prompt is not None:
            self._prompt[0].layers.clear()
            self._prompt = None


def stand_in_for(model: Any, call: GenerateCall) -> Any:
    """Return a stand-in for a model, which runs its passes through a `GenerateCall`."""
    found = copy_without_hooks(model)
    cls: Any = type(model)
    found.__class__ = _class_for(cls)
    found.__dict__[GENERATE_CALL] = call
    return found


@cache
def _class_for(cls: Any) -> Any:
    """Return a subclass of a model's class that runs its passes through a `GenerateCall`."""

    @wraps(cls.forward)
    def forward(self: Any, **arguments: Any) -> Any:
        return self.__dict__[GENERATE_CALL].forward(arguments)

    @wraps(cls.prepare_inputs_for_generation)
    def prepare_inputs_for_generation(self: Any, input_ids: torch.Tensor, **arguments: Any) -> Any:
        if self.__dict__[GENERATE_CALL].step is None:
            return cls.prepare_inputs_for_generation(self, input_ids, **arguments)
        return {"input_ids": input_ids[:, -1:]}

    own = {
        "__module__": cls.__module__,
        "forward": forward,
        "prepare_inputs_for_generation": prepare_inputs_for_generation,
    }
    return type(cls.__name__, (cls,), own)
