"""Run a model's own attention kernel while its config names our attention function.

In transformers, a config names the attention function (`AttentionInterface`). To call our function,
a module gets a copy of its config that names it. The model's own kernel reads the module's config
too, so it gets a view of the module that has the original config. Nothing is swapped while a kernel
runs: other threads may be using the module.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any, Final

from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from eah.errors import UnsupportedModelError

ORIGINAL: Final = "_config_under_this"


class ModuleView:
    """An attention module with another config."""

    def __init__(self, module: Any, config: Any) -> None:
        """View a module, or a view of one, with this config."""
        self.module, self.config = module, config

    def __getattr__(self, name: str) -> Any:
        """Return the module's attribute."""
        return getattr(self.module, name)


def config_naming(config: Any, name: str) -> Any:
    """Return a copy of a config that names an attention function.

    Sub-configs, such as the vision tower's, are unchanged: the property's setter would change them
    too, and the copy shares them with the original.
    """
    named = copy.copy(config)
    named._attn_implementation_internal = name
    named.__dict__[ORIGINAL] = config
    return named


def original_config(config: Any) -> Any:
    """Return the config that `config_naming` copied."""
    return config.__dict__[ORIGINAL]


def own_config(module: Any) -> Any:
    """Return the original config of an attention module, also while it is replaced."""
    config = module.config
    while ORIGINAL in config.__dict__:
        config = original_config(config)
    return config


def run_kernel(module: Any, config: Any, *tensors: Any, **kwargs: Any) -> Any:
    """Run the attention function that a config names.

    Args:
        module: The attention module.
        config: Its original config.
        tensors: Query, key, value and mask.
        kwargs: What else transformers passes to attention functions.
    """
    return kernel_of(module, config)(ModuleView(module, config), *tensors, **kwargs)


def kernel_of(module: Any, config: Any) -> Callable[..., Any]:
    """Return the attention function that a config names."""
    name = str(config._attn_implementation)
    if name != "eager":
        function: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS[name]
        return function
    while isinstance(module, ModuleView):
        module = module.module
    return eager_function(type(module))


def eager_function(attention: type[nn.Module]) -> Callable[..., Any]:
    """Return the eager attention function of the file that defines an attention class.

    Raises:
        UnsupportedModelError: If that file has none.
    """
    for cls in attention.__mro__:
        names = vars(sys.modules[cls.__module__])
        if "ALL_ATTENTION_FUNCTIONS" in names and "eager_attention_forward" in names:
            function: Callable[..., Any] = names["eager_attention_forward"]
            return function
    raise UnsupportedModelError(
        f"{attention.__name__} does not choose its kernel through AttentionInterface; "
        "EAH supports decoders that do, as LLaMA's does"
    )
