"""Wrap `generate` of a patched model to record where its prompt ends.

Rows after the prompt belong to the answer, even if one pass runs both (`use_cache=False`, assisted
generation). Continuous batching packs prompts of many requests into one row and runs them in a
separate thread, so it is refused at its start.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from torch import nn

from eah.errors import EAHStateError
from eah.prompt_end import generation_of
from eah.state import Session, set_scoped

GENERATE: Final = "generate"
CONTINUOUS: Final = (
    "generate_batch",
    "init_continuous_batching",
    "continuous_batching_context_manager",
)


class Generate:
    """`generate` of one model while EAH is enabled or observed."""

    def __init__(self, session: Session, model: nn.Module) -> None:
        """Wrap the model's own `generate`."""
        self.session, self.model = session, model

    @property
    def __signature__(self) -> inspect.Signature:
        """Signature of the model's own `generate`."""
        own: Any = type(self.model)
        return inspect.signature(own.generate)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model's own `generate` with the prompt's length set."""
        own: Callable[..., Any] = getattr(type(self.model), GENERATE)
        generation = generation_of(self.model, args, kwargs)
        if not self.session.is_active or generation is None:
            return own(self.model, *args, **kwargs)
        with set_scoped([self.session], "prompt_length", generation):
            return own(self.model, *args, **kwargs)


class Refuse:
    """A method of one model that EAH does not support."""

    def __init__(self, session: Session, model: nn.Module, name: str) -> None:
        """Wrap the model's own method."""
        self.session, self.model, self.name = session, model, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, unless EAH was disabled.

        Raises:
            EAHStateError: While EAH is enabled or observed.
        """
        if self.session.is_active:
            raise EAHStateError(
                f"{self.name} packs the prompts of many requests into one row, where EAH can't "
                "separate them; use generate with padded batches, or disable EAH"
            )
        return getattr(type(self.model), self.name)(self.model, *args, **kwargs)


def wrap_methods(session: Session, model: nn.Module) -> None:
    """Wrap a model's methods that generate."""
    if callable(getattr(type(model), GENERATE, None)):
        model.__dict__.setdefault(GENERATE, Generate(session, model))
    for name in CONTINUOUS:
        if hasattr(type(model), name):
            model.__dict__.setdefault(name, Refuse(session, model, name))


def unwrap_methods(model: nn.Module) -> None:
    """Undo `wrap_methods`."""
    for name in (GENERATE, *CONTINUOUS):
        if isinstance(model.__dict__.get(name), (Generate, Refuse)):
            del model.__dict__[name]
