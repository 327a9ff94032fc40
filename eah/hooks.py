"""Hooks on the models around patched layers, which begin and end a forward pass."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from types import FrameType
from typing import Any, Final

import torch
from torch import nn

from eah.cached_images import cache_of
from eah.errors import EAHStateError
from eah.prompt import Prompt
from eah.prompt_reader import UNKNOWN_IMAGE, prompt_of
from eah.state import (
    STATE,
    Findings,
    Pass,
    Session,
    current,
    current_pass,
    keep_findings,
    scoped_value,
)

logger = logging.getLogger(__name__)

TRAINING: Final = "the model is in training mode, so it runs without EAH; call model.eval() for EAH"


class ModelHooks:
    """Hooks on a model around patched layers; the outermost model in a call begins and ends it."""

    def __init__(self, session: Session, model: nn.Module, *, is_decoder: bool) -> None:
        """Remember whose session it is, and the names of `forward`'s positional arguments."""
        self.session, self.is_decoder = session, is_decoder
        self.names = tuple(inspect.signature(type(model).forward).parameters)[1:]

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's has no types
    def before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a pass, unless an outer model has begun one."""
        if not self.session.is_active:
            return
        outer = current.get()
        while outer is not None and not outer.is_running():
            outer = outer.outer
        current.set(outer)
        arguments = {**dict(zip(self.names, args, strict=False)), **kwargs}
        if outer is None or outer.session is not self.session:
            current.set(self._begin(model, arguments, outer))
        elif outer.is_open:
            self._read(outer, model, arguments)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's has no types
    def after(self, model: nn.Module, _: Any, __: Any, output: Any) -> None:
        """End the pass that this model began; also called after an exception, without output."""
        active_pass = current_pass(self.session)
        if active_pass is not None and active_pass.model is model:
            current.set(active_pass.outer)
            active_pass.model = active_pass.frame = None
            _end(active_pass, output)
            self.session.cached_images.carry(active_pass.past, output)

    def _begin(
        self, model: nn.Module, arguments: Mapping[str, Any], outer: Pass | None
    ) -> Pass | None:
        """Read a forward pass from the arguments of a model's `forward`; None without a prompt.

        Raises:
            EAHStateError: If the image tokens can't be located, or are split over passes.
        """
        session = self.session
        ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
        tokens = ids if ids is not None else embeds
        if tokens is None:
            return outer
        prompt, findings = Prompt(tokens.shape[1], 0), Findings(tokens.shape[0], None)
        prefix = scoped_value(session, "prefix")
        active_pass = Pass(session, model, _call_frame(), outer, prompt, prefix, findings)
        active_pass.past = arguments.get("past_key_values")
        if model.training and _is_trained(model):
            _warn_of_training(session, model)
            active_pass.prompt = replace(prompt, skipped=TRAINING)
            findings.skipped = TRAINING
        else:
            self._read(active_pass, model, arguments)
        return active_pass

    def _read(self, active_pass: Pass, model: nn.Module, arguments: Mapping[str, Any]) -> None:
        """Set the prompt of a pass, from the arguments of its model or of an inner one.

        Raises:
            EAHStateError: If the image tokens are not known in the innermost model either.
        """
        if arguments.get("input_ids") is None and arguments.get("inputs_embeds") is None:
            return
        prompt = prompt_of(self.session, model, arguments, is_decoder=self.is_decoder)
        active_pass.is_open = prompt is None
        if prompt is None and self.is_decoder:
            if self.session.config is not None:
                raise EAHStateError(UNKNOWN_IMAGE)
            prompt = replace(active_pass.prompt, skipped=UNKNOWN_IMAGE.split(";")[0])
        if prompt is not None:
            active_pass.prompt, active_pass.is_open = prompt, False
            active_pass.findings.skipped = prompt.skipped
            active_pass.findings.unchecked = prompt.image if prompt.may_be_text else None


def _is_trained(model: nn.Module) -> bool:
    """Return whether all patched layers of a model are in training mode."""
    patched = [module for module in model.modules() if STATE in module.__dict__]
    return all(module.training for module in patched)


def _warn_of_training(session: Session, model: nn.Module) -> None:
    """Warn once that EAH does not act on a model in training mode."""
    if not session.has_warned_of_training:
        session.has_warned_of_training = True
        name = type(model).__name__
        logger.warning("EAH: %s %s", name, TRAINING[len("the model ") :])


def _end(active_pass: Pass, output: Any) -> None:
    """Store the findings of a pass.

    Raises:
        EAHStateError: If an image prefill ran without reaching every target layer.
    """
    session, prompt = active_pass.session, active_pass.prompt
    if prompt.is_decoding:
        return
    keep_findings(session, active_pass.findings)
    if output is None:
        active_pass.findings.skipped = prompt.skipped or "the forward pass was not completed"
        return
    past = cache_of(output)
    if prompt.image is not None and session.cached_images.get(past) is None:
        session.cached_images.keep(past, prompt.image)
    missed = sorted(set(session.shared_layers) - active_pass.reached)
    if missed and prompt.skipped is None and not prompt.is_text():
        raise EAHStateError(
            f"the attention of layers {missed} did not run through EAH in this forward pass; "
            "disable EAH, then enable it on the model that runs these layers"
        )


def _call_frame() -> FrameType:
    """Return the frame in which torch calls the model whose hook is running."""
    here = frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != nn.Module.__call__.__code__.co_filename:
        frame = frame.f_back  # type: ignore[assignment]  # the end of the stack ends the loop
    return frame or here
