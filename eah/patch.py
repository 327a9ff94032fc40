"""Enable and disable EAH on a loaded model.

Why here: the attention function is the last place where query, key and mask are at hand before the
kernel, and transformers lets each attention module choose its own. One layer up, a replaced
`forward` would repeat the projections, the cache and the position encoding of every model family;
one layer down, in the kernel, the map would have to be built.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from eah.attention import ATTENTION_NAME, STATE, LayerState, register
from eah.config import EAHConfig, span_of
from eah.errors import EAHConfigError, EAHStateError, UnsupportedVersionError
from eah.find import image_token_id, target_modules
from eah.modeling_llama_eah import HeadChoice
from eah.prefix import SharedPrefix
from eah.session import ImageTokens, ModelHooks, Session

OLDEST: Final = (4, 57)
NEWEST_MAJOR: Final = 5


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What the last image prefill found in one layer, as Python numbers.

    Attributes:
        layer: Layer index, from 0.
        head: Densest head per batch row, None where none was found.
        counts: Vision-sink columns per batch row and head.
        image_tokens: Number of image tokens per batch row.
        saturated: Per batch row, whether every image token is a sink in every head; then all
            counts tie, and the choice says nothing.
    """

    layer: int
    head: tuple[int | None, ...]
    counts: tuple[tuple[int, ...], ...]
    image_tokens: tuple[int, ...]
    saturated: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class EAHHandle:
    """What `enable` returns: what was patched, and what the last image prefill found."""

    model: nn.Module
    layers: tuple[int, ...]
    config: EAHConfig
    _session: Session

    @property
    def choices(self) -> dict[int, HeadChoice]:
        """The last image prefill's choice per layer, as tensors; empty before the first."""
        return dict(self._session.choices)

    def report(self) -> list[LayerReport]:
        """Return the last image prefill's choices as Python numbers (waits for the device)."""
        return [_report(layer, choice) for layer, choice in sorted(self.choices.items())]

    def disable(self) -> None:
        """Disable EAH on the model."""
        disable(self.model)


def enable(model: nn.Module, config: EAHConfig | None = None) -> EAHHandle:
    """Let the target layers of a loaded model attend with their densest head at image prefill.

    Args:
        model: A transformers model with a LLaMA-like decoder; vision-language or language only.
        config: Settings; the preset "paper" if None.
    Returns:
        A handle with the patched layers and, after a forward pass, what was found.
    Raises:
        EAHConfigError: If a layer or the head does not exist in the model.
        EAHStateError: If EAH is enabled on the model already.
        UnsupportedModelError: If the model or its attention kernel can't be changed.
        UnsupportedVersionError: If the installed transformers is not supported.
    """
    _check_version()
    config = config or EAHConfig()
    if is_enabled(model):
        raise EAHStateError(
            f"EAH is enabled on this {type(model).__name__} already; disable it first"
        )
    if any("eah_layer" in module.__dict__ for module in model.modules()):
        raise EAHStateError(
            f"this {type(model).__name__} was built with EAH's modeling file in the place of "
            "transformers' own; set EAH_DISABLE=1 before, or run `python -m eah.swap restore`"
        )
    targets = target_modules(model, config)
    session = Session(config, image_token_id(model))
    for module in model.modules():
        _remove_hooks(module)  # of a session that was ended on a part of this model
    register()
    for module in targets:
        ours = copy.copy(module.config)
        ours._attn_implementation = ATTENTION_NAME
        setattr(module, STATE, LayerState(session, module.config))
        module.config = ours
    around = [m for m in model.modules() if isinstance(m, PreTrainedModel)]
    for outer in around:
        if any(inner in targets for inner in outer.modules()):
            hooks = ModelHooks(session, outer)
            outer.register_forward_pre_hook(hooks.before, with_kwargs=True)
            outer.register_forward_hook(hooks.after, with_kwargs=True, always_call=True)
    return EAHHandle(model, config.layers, config, session)


def disable(model: nn.Module) -> None:
    """Take EAH off a model; its outputs are then bit for bit those from before.

    Raises:
        EAHStateError: If EAH is not enabled on the model.
    """
    if not is_enabled(model):
        raise EAHStateError(
            f"EAH is not enabled on this {type(model).__name__}; enable it with eah.enable(model)"
        )
    for module in model.modules():
        if STATE in module.__dict__:
            state: LayerState = module.__dict__[STATE]
            state.session.enabled = False
            module.config = state.config
            delattr(module, STATE)
        _remove_hooks(module)


@contextmanager
def enabled(model: nn.Module, config: EAHConfig | None = None) -> Iterator[EAHHandle]:
    """Enable EAH for the length of a `with` block; see `enable`."""
    handle = enable(model, config)
    try:
        yield handle
    finally:
        disable(model)


def is_enabled(model: nn.Module) -> bool:
    """Tell whether EAH is enabled on a model."""
    return any(STATE in module.__dict__ for module in model.modules())


@contextmanager
def image_tokens(model: nn.Module, tokens: torch.Tensor | tuple[int, int]) -> Iterator[None]:
    """Say where the image tokens of the prompts in a `with` block are.

    Needed where a caller passes embeddings only. On a model without EAH it does nothing, so that
    the same code serves the baseline.

    Args:
        model: The model that is called in the block.
        tokens: A span (start, stop) along the prompt, or a mask of shape (B, S), True at image
            tokens. Beams repeat the rows of a mask.
    Raises:
        EAHConfigError: If the span is empty, or the mask is not a 2-D bool tensor.
    """
    if isinstance(tokens, torch.Tensor):
        if tokens.dim() != 2 or tokens.dtype != torch.bool or not len(tokens):
            raise EAHConfigError(
                f"image tokens of shape {tuple(tokens.shape)} and {tokens.dtype}; "
                "a mask is (batch, prompt length), not empty, and bool"
            )
        given = ImageTokens(mask=tokens)
    else:
        given = ImageTokens(span=span_of(tokens))
    sessions = _sessions(model)
    before = [session.given for session in sessions]
    for session in sessions:
        session.given = given
    try:
        yield
    finally:
        for session, earlier in zip(sessions, before, strict=True):
            session.given = earlier


@contextmanager
def sharing_prefix(model: nn.Module, prefix: SharedPrefix) -> Iterator[None]:
    """Let the prompts in a `with` block be batches whose first tokens are shared; see `eah.prefix`.

    A pass that starts without a cache runs whole prompts and fills the prefix's sums. A pass of
    more than one token on a cache goes on behind the prefix and uses them. On a model without EAH
    it does nothing.
    """
    sessions = _sessions(model)
    before = [session.prefix for session in sessions]
    for session in sessions:
        session.prefix = prefix
    try:
        yield
    finally:
        for session, earlier in zip(sessions, before, strict=True):
            session.prefix = earlier


def handle_of(model: nn.Module) -> EAHHandle | None:
    """Return what `enable` returned for a model; None if EAH is not enabled on it."""
    for session in _sessions(model):
        return EAHHandle(model, session.config.layers, session.config, session)
    return None


def _sessions(model: nn.Module) -> list[Session]:
    """Return the sessions of a model's target layers, each once."""
    states = [module.__dict__.get(STATE) for module in model.modules()]
    return list({id(s.session): s.session for s in states if s is not None}.values())


def _check_version() -> None:
    """Refuse a transformers that the seam was not tried on."""
    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    if (major, minor) < OLDEST or major > NEWEST_MAJOR:
        raise UnsupportedVersionError(
            f"transformers {transformers.__version__} is installed; eah.enable needs "
            f">= {OLDEST[0]}.{OLDEST[1]} and < {NEWEST_MAJOR + 1}: "
            f"pip install 'transformers>={OLDEST[0]}.{OLDEST[1]},<{NEWEST_MAJOR + 1}'"
        )


def _remove_hooks(module: nn.Module) -> None:
    """Remove our hooks. By content, not by handle: a deep copy has the hooks but no handles."""
    for hooks, flags in (
        (module._forward_pre_hooks, [module._forward_pre_hooks_with_kwargs]),
        (
            module._forward_hooks,
            [module._forward_hooks_with_kwargs, module._forward_hooks_always_called],
        ),
    ):
        ours = [key for key, hook in hooks.items() if _is_ours(hook)]
        for key in ours:
            del hooks[key]
            for flag in flags:
                flag.pop(key, None)


def _is_ours(hook: Any) -> bool:
    return isinstance(getattr(hook, "__self__", None), ModelHooks)


def _report(layer: int, choice: HeadChoice) -> LayerReport:
    return LayerReport(
        layer,
        tuple(None if head < 0 else head for head in choice.head.tolist()),
        tuple(tuple(row) for row in choice.counts.tolist()),
        tuple(choice.image_tokens.tolist()),
        tuple(choice.saturated.tolist()),
    )
