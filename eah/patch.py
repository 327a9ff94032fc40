"""Enable, disable and observe: install our attention function in a loaded model, and remove it.

Why here: the attention function is the last point before the kernel that has query, key and mask,
and in transformers each attention module can choose its own. One level up, a replaced `forward`
would repeat the projections, the cache and the position encoding of every model family. One level
down, in the kernel, the attention map would have to be built.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import transformers
from torch import nn
from transformers import PreTrainedModel

from eah.attention import ATTENTION_NAME, LayerState, register
from eah.context import sessions_of
from eah.errors import EAHStateError, UnsupportedVersionError
from eah.find import (
    Model,
    check_heads,
    num_heads,
    patchable_layers,
    placeholder_ids,
    target_modules,
    transformers_model,
)
from eah.generation import unwrap_methods, wrap_methods
from eah.handle import EAHHandle, Observer
from eah.hooks import ModelHooks
from eah.kernels import config_naming
from eah.method import RULES
from eah.observation import RELEASED, validate_rules
from eah.settings import EAHConfig, validate_layers
from eah.state import STATE, ObserverKey, Session

OLDEST: Final = (4, 57)
_patching: Final = threading.RLock()  # two threads may enable, observe and disable one model
NEWEST_MAJOR: Final = 5


def enable(model: Model, config: EAHConfig | None = None) -> EAHHandle:
    """Make the target layers of a loaded model share their densest head's map at image prefill.

    Args:
        model: A transformers model with a LLaMA-like decoder, vision-language or language only, or
            a wrapper that has one as its attribute `model`.
        config: Settings; the preset "paper" if None.
    Returns:
        A handle with the patched layers and, after a forward pass, what was found.
    Raises:
        EAHConfigError: If a layer or the head does not exist in the model.
        EAHStateError: If EAH is already enabled on the model.
        UnsupportedModelError: If the model or its attention kernel can't be changed.
        UnsupportedVersionError: If the installed transformers is not supported.
    """
    model, config = _validate_model(model), config or EAHConfig()
    if is_enabled(model):
        raise EAHStateError(
            f"EAH is already enabled on this {type(model).__name__}; disable it first"
        )
    targets = target_modules(model, config.layers)
    check_heads(targets, config)
    with _patching:
        session = _session(model)
        session.config = config
        _patch(model, session, targets)
    heads = {layer: num_heads(module) for layer, module in targets.items()}
    return EAHHandle(model, config.layers, config, session, heads, disable)


def disable(model: Model) -> None:
    """Disable EAH on a model, which restores its original outputs exactly.

    Raises:
        EAHStateError: If EAH is not enabled on the model.
    """
    model = transformers_model(model)
    enabled_sessions = [session for session in sessions_of(model) if session.config is not None]
    if not enabled_sessions:
        raise EAHStateError(
            f"EAH is not enabled on this {type(model).__name__}; enable it with eah.enable(model)"
        )
    with _patching:
        for session in enabled_sessions:
            session.config = None
        _unpatch(model)


@contextmanager
def enabled(model: Model, config: EAHConfig | None = None) -> Iterator[EAHHandle]:
    """Enable EAH for the length of a `with` block; see `enable`."""
    handle = enable(model, config)
    try:
        yield handle
    finally:
        disable(model)


def is_enabled(model: Model) -> bool:
    """Return whether EAH is enabled on a model."""
    sessions = sessions_of(transformers_model(model))
    return any(session.config is not None for session in sessions)


@contextmanager
def observe(
    model: Model,
    layers: Literal["all"] | Sequence[int] = "all",
    config: EAHConfig | None = None,
    rules: Sequence[str] = tuple(RULES),
) -> Iterator[Observer]:
    """Count vision sinks in a `with` block, without changing the model's outputs.

    If EAH is enabled on the model, its layers are counted with their original attention. Weights
    are summed block by block and never stored.

    Args:
        model: A transformers model, or a wrapper that has one as its attribute `model`.
        layers: Indices from 0, or "all" for all layers that can be counted.
        config: Settings that sinks are counted with; None for those that EAH is enabled with, else
            the preset "paper". Its layers, image_span and vision_tokens are ignored: the image
            tokens are those of `image_tokens`, of the settings that EAH is enabled with, or the
            prompt's placeholders.
        rules: Named rules whose head is reported, besides that of the settings. Without
            "released_code", which rounds weights as the model does, models in half precision are
            counted once instead of twice.
    Raises:
        EAHConfigError: If a layer or a rule does not exist.
        UnsupportedModelError: If the model or its attention kernel can't be counted.
        UnsupportedVersionError: If the installed transformers is not supported.
    """
    model, rules = _validate_model(model), validate_rules(rules)
    wanted = patchable_layers(model)[0] if layers == "all" else validate_layers(layers)
    modules = target_modules(model, wanted)
    with _patching:
        session = _session(model)
        counted = config or session.config or EAHConfig()
        key = ObserverKey(counts_rounded=RELEASED in (*rules, counted.rule))
        # Replaced by a new dict, because forward passes of other threads may be reading it.
        session.observers = {**session.observers, key: frozenset(modules)}
        _patch(model, session, modules)
    try:
        yield Observer(tuple(modules), counted, rules, key, model.config)
    finally:
        with _patching:
            session.observers = {k: o for k, o in session.observers.items() if k is not key}
            _unpatch(model)


def handle_of(model: Model) -> EAHHandle | None:
    """Return what `enable` returned for a model; None if EAH is not enabled on it."""
    model = transformers_model(model)
    for session in sessions_of(model):
        if session.config is not None:
            modules: dict[Any, Any] = {
                m.layer_idx: m for m in model.modules() if STATE in m.__dict__
            }
            heads = {layer: num_heads(modules[layer]) for layer in session.config.layers}
            return EAHHandle(model, session.config.layers, session.config, session, heads, disable)
    return None


def _validate_model(model: Model) -> nn.Module:
    """Return a transformers model that may be patched.

    Raises:
        EAHStateError: If the drop-in file built it.
        UnsupportedVersionError: If the installed transformers is not supported.
    """
    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    if (major, minor) < OLDEST or major > NEWEST_MAJOR:
        raise UnsupportedVersionError(
            f"transformers {transformers.__version__} is installed; eah.enable needs "
            f">= {OLDEST[0]}.{OLDEST[1]} and < {NEWEST_MAJOR + 1}: "
            f"pip install 'transformers>={OLDEST[0]}.{OLDEST[1]},<{NEWEST_MAJOR + 1}'"
        )
    found = transformers_model(model)
    if any("eah_layer" in module.__dict__ for module in found.modules()):
        raise EAHStateError(
            f"this {type(found).__name__} was built with EAH's modeling file instead of "
            "transformers' own; set EAH_DISABLE=1 first, or run `python -m eah.swap restore`"
        )
    return found


def _session(model: nn.Module) -> Session:
    """Return the session of a model's patched layers, or a new one."""
    for session in sessions_of(model):
        return session
    return Session(None, placeholder_ids(model))


def _patch(model: nn.Module, session: Session, modules: dict[int, Any]) -> None:
    """Make attention modules call our function, and hook the models around them."""
    register()
    for module in modules.values():
        if STATE not in module.__dict__:
            setattr(module, STATE, LayerState(session, module.config))
            module.config = config_naming(module.config, ATTENTION_NAME)
    around = [
        outer
        for outer in model.modules()
        if isinstance(outer, PreTrainedModel) and any(STATE in m.__dict__ for m in outer.modules())
    ]
    for outer in around:
        inner = {id(module) for module in outer.modules() if module is not outer}
        is_decoder = not any(id(other) in inner for other in around)
        _add_hooks(outer, session, is_decoder=is_decoder)


def _add_hooks(model: Any, session: Session, *, is_decoder: bool) -> None:
    """Add hooks that begin and end passes of a session, unless they are there already."""
    ours = [hook for hook in model._forward_pre_hooks.values() if _is_ours(hook)]
    if any(hook.__self__.session is session for hook in ours):
        return
    _remove_hooks(model)  # of a session that ended on a submodule of this model
    unwrap_methods(model)
    hooks = ModelHooks(session, model, is_decoder=is_decoder)
    model.register_forward_pre_hook(hooks.before, with_kwargs=True)
    model.register_forward_hook(hooks.after, with_kwargs=True, always_call=True)
    wrap_methods(session, model)


def _unpatch(model: nn.Module) -> None:
    """Restore the modules that are no longer used, and then the models around them."""
    for module in model.modules():
        state: LayerState | None = module.__dict__.get(STATE)
        if state is not None and not state.session.uses(int(module.layer_idx)):  # type: ignore[arg-type]
            module.config = state.config
            delattr(module, STATE)
    if not sessions_of(model):
        for module in model.modules():
            _remove_hooks(module)
            unwrap_methods(module)


def _remove_hooks(module: nn.Module) -> None:
    """Remove our hooks, found by type: a deep copy has the hooks but no handles."""
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
