"""Hooks on the models around patched layers: they begin a forward pass and end it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType
from typing import Any

import torch
from torch import nn

from eah.checkpointing import carry_passes
from eah.errors import EAHStateError
from eah.reading import prompt_of
from eah.state import Findings, Pass, Session, current, current_pass, keep_findings, said


class ModelHooks:
    """Hooks on a model around patched layers; the outermost model in a call begins and ends it."""

    def __init__(self, session: Session, model: nn.Module) -> None:
        """Remember whose session it is, and the names of `forward`'s positional arguments."""
        self.session = session
        self.names = tuple(inspect.signature(type(model).forward).parameters)[1:]

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's has no types
    def before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a pass, unless a model further out has done so."""
        if not self.session.is_active:
            return
        outer = current.get()
        while outer is not None and not outer.is_running():
            outer = outer.outer
        current.set(outer)
        if outer is None or outer.session is not self.session:
            arguments = {**dict(zip(self.names, args, strict=False)), **kwargs}
            current.set(_begin(self.session, model, arguments, outer))

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's has no types
    def after(self, model: nn.Module, _: Any, __: Any, output: Any) -> None:
        """End the pass where it began; also called after an exception, without output."""
        under_way = current_pass(self.session)
        if under_way is not None and under_way.model is model:
            current.set(under_way.outer)
            under_way.model = under_way.frame = None
            _end(under_way, output)


def _begin(
    session: Session, model: nn.Module, arguments: Mapping[str, Any], outer: Pass | None
) -> Pass | None:
    """Read a forward pass from the arguments of a model's `forward`; None without a prompt.

    Raises:
        EAHStateError: If EAH can't know the image tokens, or can't see all of them.
    """
    ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
    tokens = ids if ids is not None else embeds
    if tokens is None:
        return outer
    prompt = prompt_of(session, arguments, ids, tokens)
    carry_passes(model, current)
    findings = Findings(tokens.shape[0], prompt.skipped)
    prefix = said(session, "prefix")
    return Pass(session, model, _call_frame(), outer, prompt, prefix, findings)


def _end(under_way: Pass, output: Any) -> None:
    """Keep what a pass found.

    Raises:
        EAHStateError: If an image prefill ran without reaching every target layer.
    """
    session, prompt = under_way.session, under_way.prompt
    if prompt.is_decoding:
        return
    keep_findings(session, under_way.findings)
    if output is None:
        under_way.findings.skipped = prompt.skipped or "the forward pass was not completed"
        return
    if prompt.image is not None and under_way.prefix is None:
        with suppress(TypeError):  # no cache, or tuples of tensors
            session.cached_images.setdefault(getattr(output, "past_key_values", None), prompt.image)
    missed = sorted(set(session.shared_layers) - under_way.reached)
    if missed and prompt.skipped is None:
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
