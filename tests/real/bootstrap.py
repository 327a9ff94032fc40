"""Run a script of somebody else's repository on a CPU, and record what its LLaMA computed.

    PYTHON bootstrap.py SETTINGS.json SCRIPT ARGUMENT...

Runs in the interpreter that the repository needs, without eah's package: Python 3.8 and the
standard library and torch. `run.py` writes the settings: where to record, which modules to stub,
what the projector is called. `stubs.py` and `recorder.py` lie beside this file.
"""

import json
import os
import runpy
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import functools

import recorder
import stubs
import torch

NEW_TOKENS = 4  # what the scripts ask for, up to 1024, says no more about EAH than these
FACTORIES = ("arange", "as_tensor", "empty", "full", "linspace", "ones", "rand", "randn", "tensor")


def on_cpu(function):
    """Return a function of torch that takes any CUDA device for the CPU."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        return function(*map(_cpu, args), **{key: _cpu(value) for key, value in kwargs.items()})

    return run


def _cpu(value):
    is_cuda = isinstance(value, (str, torch.device)) and str(value).split(":")[0] == "cuda"
    return torch.device("cpu") if is_cuda else value


def patch_torch():
    """Let code that asks for a GPU run without one, in one process."""
    for name in (*FACTORIES, "zeros"):
        setattr(torch, name, on_cpu(getattr(torch, name)))
    torch.Tensor.to = on_cpu(torch.Tensor.to)
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *args, **kwargs: self
    build = torch.utils.data.DataLoader.__init__

    @functools.wraps(build)
    def without_workers(self, *args, **kwargs):
        build(self, *args, **{**kwargs, "num_workers": 0})

    torch.utils.data.DataLoader.__init__ = without_workers


def patch_generate():
    """Cap the answers. Runs before modeling_llama is imported, so that EAH wraps this wrapper."""
    from transformers.generation.utils import GenerationMixin

    run = GenerationMixin.generate

    @functools.wraps(run)
    def generate(self, *args, **kwargs):
        return run(self, *args, **{**kwargs, "max_new_tokens": NEW_TOKENS})

    GenerationMixin.generate = generate


def main(settings_file, script, *arguments):
    """Run the script as if it was called by its name."""
    with open(settings_file) as file:
        settings = json.load(file)
    stubs.install(settings["stubs"])
    torch.manual_seed(0)
    patch_torch()
    patch_generate()
    recorder.install(settings["record"], settings["projectors"])
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
