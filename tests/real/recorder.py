"""Record each forward pass of a LLaMA decoder: where image features went in, what came out.

The image tokens are found on a route of their own: rows of the decoder's input that equal an output
row of the model's projector.
"""

import collections
import hashlib
import json

import torch
from torch.nn.modules import module as hooks

_features = collections.deque(maxlen=8)  # outputs of the projector, each (N, D)
_projectors = set()


def install(path, names):
    """Write one JSON line per forward pass of a decoder to a file.

    Args:
        path: The file.
        names: Attributes under which models keep their projectors.
    """
    passes = []

    def registered(parent, name, child):
        if name in names and isinstance(child, torch.nn.Module):
            _projectors.add(child)

    def entered(module, args, kwargs):
        if is_decoder(module):
            passes.append({"image": None, "mask": kwargs.get("attention_mask")})
        is_first = passes and passes[-1]["image"] is None
        if is_first and type(module).__name__ == "LlamaDecoderLayer":
            hidden = args[0] if args else kwargs["hidden_states"]
            passes[-1]["image"] = spans(image_rows(hidden), passes[-1]["mask"])

    def left(module, args, kwargs, output):
        if module in _projectors:
            _features.append(output.detach().reshape(-1, output.shape[-1]))
        elif is_decoder(module):
            hidden = output[0]
            seen = passes.pop()
            line = {
                "rows": list(hidden.shape[:2]),
                "digest": hashlib.sha256(hidden.float().numpy().tobytes()).hexdigest(),
                "last": hidden[:, -1].float().tolist(),
                "image": seen["image"],
            }
            with open(path, "a") as file:
                file.write(json.dumps(line) + "\n")

    hooks.register_module_module_registration_hook(registered)
    _with_kwargs(entered, left)


def _with_kwargs(entered, left):
    """Wrap every module's call; torch has no global hook before a call that sees its keywords."""
    call = torch.nn.Module.__call__

    def recorded(self, *args, **kwargs):
        entered(self, args, kwargs)
        output = call(self, *args, **kwargs)
        left(self, args, kwargs, output)
        return output

    torch.nn.Module.__call__ = recorded


def is_decoder(module):
    """Tell a LLaMA decoder, also one that inherits."""
    return any(base.__name__ == "LlamaModel" for base in type(module).__mro__)


def image_rows(hidden):
    """Return which tokens are rows of the projector's output, (B, S) bool."""
    found = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    known = {
        row.numpy().tobytes()
        for features in _features
        if features.shape[-1] == hidden.shape[-1]
        for row in features.to(hidden.dtype)
    }
    for batch, row in torch.cartesian_prod(*map(torch.arange, found.shape)).tolist():
        found[batch, row] = hidden[batch, row].detach().numpy().tobytes() in known
    return found


def spans(found, mask):
    """Return the runs of True of each row as lists [start, stop], counted without its padding."""
    result = []
    for index, row in enumerate(found):
        if mask is not None and mask.dim() == 2 and mask.shape[1] == len(row):
            row = row[mask[index].bool()]
        edges = torch.diff(row.int(), prepend=torch.zeros(1), append=torch.zeros(1)).nonzero()
        result.append(edges.reshape(-1, 2).tolist())
    return result
