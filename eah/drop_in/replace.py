"""Load the original file instead of ours, and patch its model class."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import transformers
from torch import nn

from eah.drop_in.callers import _patch_generate
from eah.drop_in.messages import TALLY, show
from eah.drop_in.names import ORIGINAL_SUFFIX
from eah.drop_in.passes import PatchedModel, _current
from eah.drop_in.sharing import SharingAttention, check_reached
from eah.settings import DropInSettings, settings_from_environment

SHARING_PREFIX: Final = "EAH"
MAPLESS_KERNELS: Final = (
    "flash",
    "flex",
    "paged",
)  # they call no torch function that could be intercepted


def replace_module(name: str, path: str) -> None:
    """Load the original file under this module's name, and patch its model class.

    Importers get the original's module, so that its names, sources and pickles are unchanged.

    Raises:
        ImportError: If the original is not next to this file, or defines no model to patch.
    """
    original = Path(path).with_name(Path(path).stem + ORIGINAL_SUFFIX + ".py")
    alias = name + ORIGINAL_SUFFIX
    ours = sys.modules[name]
    module = sys.modules.get(alias)
    if module is None:
        _check_original(Path(path), original)
        spec = importlib.util.spec_from_file_location(name, original)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = sys.modules[alias] = module
        try:
            with _rename_source_file(str(original), path):
                spec.loader.exec_module(module)
        except BaseException:
            sys.modules[name] = ours
            del sys.modules[alias]
            raise
    sys.modules[name] = module
    models = [
        value
        for key, value in vars(module).items()
        if key.endswith("Model")
        and not key.endswith("PreTrainedModel")
        and isinstance(value, type)
        and value.__module__ == module.__name__
    ]
    if len(models) != 1:
        raise ImportError(
            f"{original.name} defines {len(models)} decoder models, but EAH patches a file with one"
        )
    _patch_model(models[0], module)
    # torch.compile looks up the globals of our functions by the name of their module.
    ours.__name__ = name + "_eah"
    sys.modules[ours.__name__] = ours
    # Pickles of patched models look up these names, and users import `image_tokens` here.
    for key, value in vars(ours).items():
        if getattr(value, "__module__", None) == name:
            vars(module).setdefault(key, value)
    for key, value in list(vars(module).items()):
        if isinstance(value, type) and issubclass(value, nn.Module) and "Attention" in key:
            shared = type(SHARING_PREFIX + key, (SharingAttention, value), {"__module__": name})
            setattr(module, shared.__name__, shared)


def _check_original(path: Path, original: Path) -> None:
    """Refuse to load without the original.

    Raises:
        ImportError: Naming the repair. It is also printed, because some code swallows this error.
    """
    if not original.is_file():
        problem = f"the original, {original.name}, is not next to it"
    elif "class SharingAttention" in original.read_text(encoding="utf-8", errors="replace"):
        problem = f"{original.name} next to it is EAH's file, too"
    else:
        return
    message = (
        f"{path} is EAH's file, but {problem}; run `python -m eah.swap install --file "
        f"{shlex.quote(str(path))}`, "
        f"which gets the original back, or reinstall transformers {transformers.__version__}"
    )
    show(f"EAH: error: {message}")
    raise ImportError(message)


@contextmanager
def _rename_source_file(original: str, path: str) -> Iterator[None]:
    """Report the original's functions as being in modeling_llama.py.

    transformers 4.52 and later use the file's name for a model's docstrings, and print a complaint
    about a name that they do not know.
    """
    find = inspect.getsourcefile

    def getsourcefile(thing: Any) -> str | None:
        found = find(thing)
        return path if found == original else found

    inspect.getsourcefile = getsourcefile  # type: ignore[assignment]  # the same, less strictly typed
    try:
        yield
    finally:
        inspect.getsourcefile = find


def _patch_model(model: Any, module: ModuleType) -> None:
    """Make a model class patch its target layers when it is created, and read its prompts."""
    build, run = model.__init__, model.forward
    names = tuple(inspect.signature(run).parameters)[1:]

    @functools.wraps(build)
    def patched_init(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        settings = settings_from_environment(os.environ)
        TALLY.announce(settings, f"transformers {transformers.__version__}")
        if settings.enabled:
            layers = _layers_of(self, settings)
            self.eah_state = PatchedModel(settings, layers)
            for layer in layers:
                _patch_attention(self.layers[layer], self.eah_state, layer, module)

    @functools.wraps(run)
    def patched_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        state: PatchedModel | None = getattr(self, "eah_state", None)
        if state is None:
            return run(self, *args, **kwargs)
        state.is_trained = self.training
        if self.training:
            TALLY.warn(
                "training",
                f"{type(self).__name__} is in training mode, so it runs without EAH; call "
                "model.eval() for EAH",
            )
            return run(self, *args, **kwargs)
        arguments = {**dict(zip(names, args)), **kwargs}  # noqa: B905  # OPERA's Python is 3.9
        active_pass = state.begin(self, arguments)
        token = _current.set(active_pass)
        try:
            output = run(self, *args, **kwargs)
        finally:
            _current.reset(token)
        if active_pass is not None:
            state.cached_images.carry(arguments.get("past_key_values"), output)
            if not active_pass.prompt.is_decoding:
                check_reached(self, active_pass)
                state.end(active_pass, output)
        return output

    model.__init__, model.forward = patched_init, patched_forward
    _patch_generate()


def _layers_of(model: Any, settings: DropInSettings) -> tuple[int, ...]:
    """Return the target layers that a model has.

    Raises:
        ValueError: If the environment names one that it does not have.
    """
    count = len(model.layers)
    missing = [layer for layer in settings.config.layers if layer >= count]
    if missing and settings.layers_named:
        raise ValueError(
            f"EAH layers {', '.join(map(str, settings.config.layers))}, but "
            f"{type(model).__name__} has {count} decoder layers (0..{count - 1}); set EAH_LAYERS, "
            "or EAH_DISABLE=1"
        )
    if missing:
        TALLY.warn(
            f"layers {missing}",
            f"{type(model).__name__} has no layer {missing}, so EAH does not act there",
        )
    return tuple(layer for layer in settings.config.layers if layer < count)


def _patch_attention(layer: Any, state: PatchedModel, index: int, module: ModuleType) -> None:
    """Give a decoder layer's attention a class that shares the densest head's map.

    Raises:
        ValueError: If its kernel can't be shared, or the head does not exist.
    """
    attention = layer.self_attn
    base = type(attention)
    config = getattr(attention, "config", None)
    kernel = str(getattr(config, "_attn_implementation", "")) + base.__name__.lower()
    if any(name in kernel for name in MAPLESS_KERNELS):
        raise ValueError(
            f"EAH can't share a head in layer {index}: its attention is "
            f"{getattr(config, '_attn_implementation', base.__name__)}; load the model with "
            "attn_implementation='eager' or 'sdpa', or set EAH_DISABLE=1"
        )
    heads = getattr(config, "num_attention_heads", None)
    head = state.settings.config.head
    if head is not None and heads is not None and head >= heads:
        raise ValueError(f"EAH_HEAD={head}, but layer {index} has {heads} heads (0..{heads - 1})")
    sharing = vars(module).get(SHARING_PREFIX + base.__name__)
    if sharing is None:
        raise ValueError(
            f"EAH does not know {base.__name__} of layer {index}, which {module.__name__} does not "
            "define; set other EAH_LAYERS, or EAH_DISABLE=1"
        )
    attention.__class__ = sharing
    attention.eah_state, attention.eah_layer = state, index


if not __name__.startswith("eah."):
    replace_module(__name__, __file__)
