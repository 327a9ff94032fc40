"""Build a model and fill it with a checkpoint's tensors, one by one.

The model is made without memory for its weights, every tensor is cast and moved to its place when
it is read, and its file is closed before the next: the peak is one copy of the model and one file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from accelerate import dispatch_model, infer_auto_device_map, init_empty_weights
from accelerate.utils import set_module_tensor_to_device
from torch import nn

from models.checkpoints import Checkpoint, weight_files
from models.devices import AUTO
from models.errors import ModelError
from models.layouts import part_rules
from models.precision import Precision
from models.quantization import Quantization, quantize
from models.tensor_plan import THIRDS, Destination, Plan, plan_tensors
from models.tensors import TensorFiles

# Blocks with residual connections, which must not be spread over two devices.
NO_SPLIT: Final = (
    "LlamaDecoderLayer",
    "CLIPEncoderLayer",
    "InstructBlipEncoderLayer",
    "InstructBlipQFormerModel",
    "Blip2EncoderLayer",
    "Blip2QFormerModel",
)
# The final norm's weights are around 1 in every LLaMA, and what was added to them is near 0.
SMALLEST_NORM: Final = 0.05


@dataclass(frozen=True, slots=True)
class Parts:
    """Which part of a model a parameter belongs to, by the start of its name; else "llm"."""

    prefixes: Mapping[str, str]

    def of(self, parameter: str) -> str:
        """Return "vision", "qformer", "projector" or "llm"."""
        for prefix, part in self.prefixes.items():
            if parameter.startswith(prefix):
                return part
        return "llm"


def empty_model(model_class: type[nn.Module], config: Any) -> Any:
    """Return a model whose parameters have shapes but no memory; its buffers are real."""
    with init_empty_weights(include_buffers=False):
        return model_class(config)


def build_model(
    model_class: type[nn.Module],
    config: Any,
    checkpoint: Checkpoint,
    parts: Parts,
    *,
    device: str,
    precision: Precision | None,
    quantization: Quantization | None = None,
) -> Any:
    """Build a transformers model and load all its weights.

    Args:
        model_class: The model's class.
        config: Its config.
        checkpoint: Where the weights are.
        parts: Which part a parameter belongs to.
        device: "cpu", "cuda:N", or "auto" to spread over all GPUs.
        precision: Of each part; None keeps every tensor as it is stored.
        quantization: Of the language model's linear layers; None for none.
    Returns:
        The model in evaluation mode.
    Raises:
        ModelError: If a weight is missing, unexpected, of another shape, or a delta.
    """
    model = empty_model(model_class, config)
    files = {part: weight_files(source) for part, source in checkpoint.weights.items()}
    plan = plan_tensors(
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        part_rules(checkpoint.family.name, frozenset(files)),
        {part: found.shapes() for part, found in files.items()},
        {part: source.name for part, source in checkpoint.weights.items()},
    )
    _refuse_deltas(plan, files, checkpoint)
    first = "cpu" if quantization is not None else device
    places = _device_map(model, first, precision)
    for target, tensor in _targets(plan, files):
        module = model.get_submodule(target.rpartition(".")[0])
        dtype = tensor.dtype if precision is None else precision.dtype_of(parts.of(target), module)
        set_module_tensor_to_device(
            model,
            target,
            _place(target, places),
            value=tensor,
            dtype=dtype,
            clear_cache=False,
        )
    model.requires_grad_(False)
    if quantization is not None:
        quantize(model, quantization, device, is_target=lambda name: parts.of(name + ".") == "llm")
        return model.eval()
    if device == AUTO:
        return dispatch_model(model, places).eval()
    return model.to(device).eval()


def _targets(plan: Plan, files: Mapping[str, TensorFiles]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield parameters with their values; thirds are put together first, the absent ones zero."""
    fused: dict[str, torch.Tensor] = {}
    waiting = _thirds(plan)
    for part, found in files.items():
        for source, tensor in found.read(plan[part]):
            destination = plan[part][source]
            if destination.third is None:
                yield destination.target, tensor
                continue
            rows = tensor.shape[0]
            whole = fused.setdefault(
                destination.target, tensor.new_zeros(THIRDS * rows, *tensor.shape[1:])
            )
            whole[destination.third * rows : (destination.third + 1) * rows] = tensor
            waiting[destination.target].discard(destination)
            if not waiting[destination.target]:
                yield destination.target, fused.pop(destination.target)


def _thirds(plan: Plan) -> dict[str, set[Destination]]:
    thirds: dict[str, set[Destination]] = {}
    for found in plan.values():
        for destination in found.values():
            if destination.third is not None:
                thirds.setdefault(destination.target, set()).add(destination)
    return thirds


def _refuse_deltas(plan: Plan, files: Mapping[str, TensorFiles], checkpoint: Checkpoint) -> None:
    """Refuse weights that are differences to LLaMA's, as Vicuna and Shikra were published."""
    for part, found in plan.items():
        norms = [name for name, to in found.items() if to.target.endswith("model.norm.weight")]
        for _, tensor in files[part].read(norms):
            if tensor.float().abs().mean() < SMALLEST_NORM:
                raise ModelError(
                    f"{part} ({checkpoint.parts[part].name}) holds delta weights, the differences "
                    "to LLaMA's; add them to LLaMA-7B first (Vicuna: python -m "
                    "fastchat.model.apply_delta, Shikra: mllm/models/shikra/apply_delta.py, each "
                    "with --base LLAMA --target FOLDER --delta DELTA) and pass the result"
                )


def _device_map(model: nn.Module, device: str, precision: Precision | None) -> dict[str, Any]:
    """Return the device of each block of the model, by name; "" stands for all of it."""
    if device != AUTO:
        return {"": device}
    found: dict[str, Any] = infer_auto_device_map(
        model,
        no_split_module_classes=list(NO_SPLIT),
        dtype=torch.float32 if precision is None else precision.parts["llm"].linear,
    )
    return found


def _place(parameter: str, places: Mapping[str, Any]) -> Any:
    while parameter not in places:
        parameter = parameter.rpartition(".")[0]
    return places[parameter]
