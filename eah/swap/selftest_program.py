"""Program that `eah.swap.selftest` runs in the interpreter under test, passed as text.

Needs only torch, transformers (4.29 or later) and Python 3.8. Prints one JSON object per
result, each on a line that begins with MARK.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

MARK = "eah-selftest "
IMAGE = (6, 22)
PROMPT = 30
TEXT_PROMPT = 40  # long enough to contain an image span at the default positions
LAYER = 1
HEADS = 4
SETTINGS = {"EAH_IMAGE_SPAN": "auto", "EAH_LAYERS": str(LAYER), "EAH_THRESHOLD": "0.05"}
SAME = 1e-5  # heads with the same query, key and value, computed by one kernel
APART = 1e-3


def emit(**result: Any) -> None:
    """Print a result."""
    print(MARK + json.dumps(result), flush=True)


def main(family: str) -> None:
    """Print the versions, then the result of each proof."""
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        emit(missing=error.name)
        return
    emit(torch=torch.__version__, transformers=transformers.__version__)
    torch.set_num_threads(1)
    name = f"transformers.models.{family}.modeling_{family}"
    file = Path(transformers.__file__).parent / "models" / family / f"modeling_{family}.py"
    if not file.is_file():
        emit(no_family=str(file))
        return
    emit(file=str(file))
    if "class SharingAttention" not in file.read_text(encoding="utf-8", errors="replace"):
        emit(not_swapped=True)
        return
    try:
        swapped = importlib.import_module(name)
        version = sys.modules[name + "_eah"].VERSION
    except (ImportError, KeyError) as error:
        emit(proof="EAH's file can be imported", holds=False, detail=str(error))
        return
    emit(eah=version)
    attention = build(swapped, "eager").model.layers[0].self_attn
    if not hasattr(attention, "v_proj") or not hasattr(attention, "o_proj"):
        emit(unknown=type(attention).__name__)
        return
    plain = load_original(file, f"transformers.models.{family}.eah_selftest_original")
    kernels = ["eager"]
    if tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= (4, 36):
        kernels.append("sdpa")
    for kernel in kernels:
        prove(swapped, plain, kernel)


def load_original(file: Path, name: str) -> Any:
    """Load the kept original again, under a separate name, without EAH."""
    path = file.with_name(file.stem + "_original.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def prove(swapped: Any, plain: Any, kernel: str) -> None:
    """Compare models of the swapped file and of the original, with EAH and without."""
    import torch

    os.environ.pop("EAH_DISABLE", None)
    os.environ.update(SETTINGS)
    model, original = build(swapped, kernel), build(plain, kernel)
    os.environ["EAH_DISABLE"] = "1"
    disabled = build(swapped, kernel)
    image, text = prompts(original)

    ours, theirs = logits(model, image), logits(original, image)
    difference = float((ours - theirs).abs().max())
    emit(
        proof=f"{kernel}: with EAH, an image prompt gives other logits than the original",
        holds=difference > APART,
        detail=f"largest difference {difference:.2g}",
    )
    shared, apart = head_spread(model, image), head_spread(original, image)
    emit(
        proof=f"{kernel}: all heads of layer {LAYER} attend alike, the original's do not",
        holds=shared < SAME and apart > APART,
        detail=f"largest difference of two heads {shared:.2g}, the original's {apart:.2g}",
    )
    emit(
        proof=f"{kernel}: with EAH, a text-only prompt gives exactly the original's logits",
        holds=torch.equal(logits(model, text), logits(original, text)),
        detail=f"{TEXT_PROMPT} tokens",
    )
    equal = [torch.equal(logits(disabled, text), logits(original, text))]
    equal += [torch.equal(a, b) for a, b in zip(steps(disabled, image), steps(original, image))]  # noqa: B905  # Python 3.8
    emit(
        proof=f"{kernel}: with EAH_DISABLE=1, all logits are exactly the original's",
        holds=all(equal),
        detail=f"equal: {sum(equal)} of {len(equal)} (text prompt, image prompt, decode steps)",
    )


def build(module: Any, kernel: str) -> Any:
    """Return a tiny model whose heads differ, with the same weights for both modules."""
    import torch

    (cls,) = (
        value
        for name, value in vars(module).items()
        if name.endswith("ForCausalLM") and value.__module__ == module.__name__
    )
    config = cls.config_class(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=HEADS, num_key_value_heads=2, head_dim=8, max_position_embeddings=128,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    config._attn_implementation = kernel
    model = cls(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            scale = 0.6 if "proj" in name else 0.3
            weight.copy_(1 + 0.1 * noise if "norm" in name else scale * noise)
    return model


def prompts(model: Any) -> tuple[Any, Any]:
    """Return embeddings of a prompt with an image, and of one of text alone."""
    import torch

    generator = torch.Generator().manual_seed(2)
    table = model.get_input_embeddings().weight.detach()
    ids = torch.randint(3, len(table), (1, TEXT_PROMPT), generator=generator)
    text = table[ids]
    image = table[torch.randint(3, len(table), (1, PROMPT), generator=generator)]
    noise = torch.randn(image[:, IMAGE[0] : IMAGE[1]].shape, generator=generator)
    image[:, IMAGE[0] : IMAGE[1]] = 0.3 * noise
    return image, text


def logits(model: Any, embeds: Any) -> Any:
    """Return the logits of a prompt given as embeddings."""
    return run(model, inputs_embeds=embeds).logits


def run(model: Any, **inputs: Any) -> Any:
    """Run a model."""
    import torch

    with torch.no_grad():
        return model(**inputs)


def steps(model: Any, embeds: Any) -> Any:
    """Yield the logits of a prompt, and of three decode steps after it."""
    import torch

    output = run(model, inputs_embeds=embeds, use_cache=True)
    yield output.logits
    for _ in range(3):
        token = torch.argmax(output.logits[:, -1:], dim=-1)
        output = run(model, input_ids=token, past_key_values=output.past_key_values, use_cache=True)
        yield output.logits


def head_spread(model: Any, embeds: Any) -> float:
    """Return the largest difference between outputs of two heads of the target layer.

    All heads are given the same values for this, so that their outputs differ by their maps alone.
    """
    import torch

    attention = model.model.layers[LAYER].self_attn
    values = attention.v_proj
    seen: dict[str, Any] = {}
    kept = copy.deepcopy(values.state_dict())
    size = embeds.shape[-1] // HEADS
    hook = attention.o_proj.register_forward_pre_hook(
        lambda module, inputs: seen.update(output=inputs[0].detach())
    )
    one = {name: torch.cat([rows[:size]] * (len(rows) // size)) for name, rows in kept.items()}
    values.load_state_dict(one)
    run(model, inputs_embeds=embeds)
    values.load_state_dict(kept)
    hook.remove()
    heads = seen["output"].reshape(1, -1, HEADS, size)
    return float((heads - heads[:, :, :1]).abs().max())


if __name__ == "__main__":
    main(sys.argv[1])
