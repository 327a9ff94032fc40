"""Versions, devices, attention kernels, environment variables and drop-in of this installation."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Final

import eah
from eah.settings import OTHER_VARIABLES, VARIABLES
from eah.swap.content import FAMILY
from eah.swap.locate import find
from eah.swap.report import describe
from eah.swap.states import status

PACKAGES: Final = ("torch", "transformers", "tokenizers", "accelerate", "triton")
# What transformers calls a kernel, and the module that it needs.
KERNEL_MODULES: Final = {
    "flex_attention": "torch.nn.attention.flex_attention",
    "flash_attention_2": "flash_attn",
    "flash_attention_3": "flash_attn_interface",
}
GIB: Final = 2**30
MISSING: Final = "not installed"
Lines = Iterator[tuple[str, object]]


def describe_versions() -> Lines:
    """Yield the versions of EAH, Python, some packages, CUDA and its driver."""
    yield "eah", eah.__version__
    yield "python", f"{platform.python_version()} ({platform.python_implementation()})"
    for name in PACKAGES:
        yield name, _version(name)
    torch = _torch()
    if torch is None:
        return
    for name in ("cuda", "hip"):
        if (built_for := getattr(torch.version, name, None)) is not None:
            yield f"{name} of torch", built_for
    number = 0
    with suppress(AttributeError, RuntimeError):  # a build without CUDA
        number = int(torch._C._cuda_getDriverVersion())
    if number:
        yield "CUDA version of the driver", f"{number // 1000}.{number % 1000 // 10}"


def describe_platform() -> Lines:
    """Yield the operating system and the number of CPU cores; not the machine's name."""
    yield "system", platform.platform()
    yield "machine", platform.machine()
    yield "CPU cores", os.cpu_count()


def describe_devices() -> Lines:
    """Yield the devices that torch finds, with name, capability and memory."""
    torch = _torch()
    if torch is None:
        yield "torch", MISSING
        return
    yield "cpu", f"{torch.get_num_threads()} threads"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that torch can't use
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        found = torch.cuda.get_device_properties(index)
        capability = f"capability {found.major}.{found.minor}"
        yield f"cuda:{index}", f"{found.name}, {capability}, {found.total_memory / GIB:.1f} GiB"
    mps = getattr(torch.backends, "mps", None)
    if mps is not None and mps.is_available():
        yield "mps", "available"


def describe_kernels() -> Lines:
    """Yield the attention kernels whose functions or packages are installed."""
    torch = _torch()
    if torch is None:
        yield "torch", MISSING
        return
    yield "eager", "available"
    has_sdpa = hasattr(torch.nn.functional, "scaled_dot_product_attention")
    yield "sdpa", "available" if has_sdpa else "this torch has none"
    for name, module in KERNEL_MODULES.items():
        yield name, "available" if _is_installed(module) else MISSING


def describe_variables(environment: Mapping[str, str]) -> Lines:
    """Yield the environment variables that EAH reads, and the names of others like them."""
    read = [name for names in VARIABLES.values() for name in names] + [*OTHER_VARIABLES]
    for name in sorted(environment):
        if name in read:
            yield name, environment[name]
        elif name.startswith("EAH_"):
            yield name, "(not a setting of EAH; its value is not shown)"


def describe_drop_in() -> Lines:
    """Yield the state of EAH's file in this interpreter's transformers, by family."""
    place = find(family=FAMILY)
    families = [FAMILY]
    if place.package is not None:
        kept = place.package.glob("models/*/modeling_*_original.py")
        families += sorted({path.parent.name for path in kept} - {FAMILY})
    for family in families:
        found = place if family == FAMILY else find(family=family)
        yield family, describe(found, status(found)).replace("\n", "; ")


def _version(package: str) -> str:
    """Return a package's version without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "installed, version not recorded" if _is_installed(package) else MISSING


def _is_installed(module: str) -> bool:
    """Return whether a module can be found; its parent packages are imported."""
    try:
        return module in sys.modules or find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _torch() -> Any:
    """Return torch; None if it is not installed."""
    return import_module("torch") if _is_installed("torch") else None
