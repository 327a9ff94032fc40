"""Run a script after LLaVA's xformers patch, with a kernel in the place of xformers' own.

    xformers_patch.py PATCH SCRIPT ARGUMENT...

The stand-in computes causal attention without a torch function that EAH could intercept, as the
real kernel does.
"""

import importlib.util
import runpy
import sys
import types

import torch


def memory_efficient_attention(query, key, value, attn_bias=None):
    """Return causal attention for (B, S, H, D)."""
    scores = torch.einsum("bqhd,bkhd->bhqk", query.float(), key.float()) * query.shape[-1] ** -0.5
    if attn_bias is not None:
        rows, keys = scores.shape[-2:]
        seen = torch.ones(rows, keys, dtype=torch.bool).tril(keys - rows)
        scores = scores.masked_fill(~seen, float("-inf"))
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.einsum("bhqk,bkhd->bqhd", weights, value.float()).to(query.dtype)


ops = types.ModuleType("xformers.ops")
ops.memory_efficient_attention = memory_efficient_attention
ops.LowerTriangularMask = object
package = types.ModuleType("xformers")
package.ops = ops
sys.modules.update({"xformers": package, "xformers.ops": ops})

name = "llama_xformers_attn_monkey_patch"
spec = importlib.util.spec_from_file_location(name, sys.argv[1])
patch = importlib.util.module_from_spec(spec)
sys.modules[name] = patch
spec.loader.exec_module(patch)
patch.replace_llama_attn_with_xformers_attn()
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
