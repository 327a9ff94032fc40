"""Tiny random checkpoints in the layouts of the real ones, seeded.

Needs torch alone: the weights are saved under the names that each repository's own class loads.
Scores are spread widely enough that heads differ, so that giving one head's map to all is seen.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

import torch

HIDDEN: Final = 64
LAYERS: Final = 4
VOCABULARY: Final = 32_000
VISION: Final = 32
SHIKRA_VISION: Final = 1024  # Shikra's code has CLIP-L's width in it
EVA: Final = 64
QFORMER: Final = 48
SPREAD: Final = 0.2
CONSTANT: Final = 4.0  # what every token carries in its first channel, which no layer changes
YES: Final = 3869  # the token that this channel makes likely, so that answers can be scored
LLAMA: Final = {
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "torch_dtype": "float16",
    "tie_word_embeddings": False,
}
SPECIAL: Final = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
Weights = dict[str, torch.Tensor]


def random(*shape: int, spread: float = SPREAD) -> torch.Tensor:
    """Return a random tensor in half precision."""
    return (torch.randn(shape) * spread).half()


def decoder() -> Weights:
    """Return the weights of a LLaMA."""
    weights = {
        "model.embed_tokens.weight": random(VOCABULARY, HIDDEN, spread=1.0),
        "model.norm.weight": torch.ones(HIDDEN).half(),
        "lm_head.weight": random(VOCABULARY, HIDDEN),
    }
    weights["model.embed_tokens.weight"][:, 0] = CONSTANT
    weights["lm_head.weight"][YES] = 0
    weights["lm_head.weight"][YES, 0] = 40
    for layer in range(LAYERS):
        start = f"model.layers.{layer}."
        for name in "qkvo":
            weights[f"{start}self_attn.{name}_proj.weight"] = random(HIDDEN, HIDDEN)
        wide = int(LLAMA["intermediate_size"])  # type: ignore[call-overload]
        weights[f"{start}mlp.gate_proj.weight"] = random(wide, HIDDEN)
        weights[f"{start}mlp.up_proj.weight"] = random(wide, HIDDEN)
        weights[f"{start}mlp.down_proj.weight"] = random(HIDDEN, wide)
        for name in ("input", "post_attention"):
            weights[f"{start}{name}_layernorm.weight"] = torch.ones(HIDDEN).half()
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            weights[f"{start}{name}.weight"][0] = 0
    return weights


def linear(name: str, wide: int, narrow: int) -> Weights:
    """Return the weights of a linear layer."""
    return {f"{name}.weight": random(wide, narrow), f"{name}.bias": random(wide)}


def projector(name: str, narrow: int) -> Weights:
    """Return the linear layer that makes image tokens."""
    weights = linear(name, HIDDEN, narrow)
    weights[f"{name}.weight"][0] = 0
    weights[f"{name}.bias"][0] = CONSTANT
    return weights


def write(folder: Path, config: dict[str, Any], weights: Weights) -> None:
    """Write a checkpoint: its configuration and its weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(weights, folder / "pytorch_model.bin")


def write_tokenizer(folder: Path, tokenizer: Path) -> None:
    """Write LLaMA's tokenizer beside a checkpoint."""
    shutil.copy(tokenizer, folder / "tokenizer.model")
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "model_max_length": 2048}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **SPECIAL}))
    (folder / "special_tokens_map.json").write_text(json.dumps({**SPECIAL, "pad_token": "<unk>"}))


def write_vision(folder: Path, size: int, width: int = VISION) -> None:
    """Write a CLIP vision tower for pictures of some size, in patches of 14."""
    config = {
        "model_type": "clip_vision_model",
        "architectures": ["CLIPVisionModel"],
        "hidden_size": width,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "image_size": size,
        "patch_size": 14,
        "projection_dim": width,
    }
    start = "vision_model."
    patches = (size // 14) ** 2
    weights = {
        f"{start}embeddings.class_embedding": random(width),
        f"{start}embeddings.patch_embedding.weight": random(width, 3, 14, 14),
        f"{start}embeddings.position_embedding.weight": random(patches + 1, width),
    }
    norms = ["pre_layrnorm", "post_layernorm"]
    for layer in range(3):
        block = f"encoder.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            weights.update(linear(f"{start}{block}self_attn.{name}", width, width))
        weights.update(linear(f"{start}{block}mlp.fc1", 64, width))
        weights.update(linear(f"{start}{block}mlp.fc2", width, 64))
        norms += [f"{block}layer_norm1", f"{block}layer_norm2"]
    for name in norms:
        weights[f"{start}{name}.weight"] = torch.ones(width).half()
        weights[f"{start}{name}.bias"] = torch.zeros(width).half()
    write(folder, config, weights)
    side = {"shortest_edge": size}
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": side,
        "crop_size": {"height": size, "width": size},
        "do_resize": True,
        "do_center_crop": True,
        "do_normalize": True,
        "image_mean": [0.481, 0.458, 0.408],
        "image_std": [0.269, 0.261, 0.276],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def write_llava(folder: Path, vision: Path, tokenizer: Path) -> None:
    """Write a LLaVA-1.5: 576 image tokens from a projector of two layers."""
    config = {
        **LLAMA,
        "model_type": "llava",
        "architectures": ["LlavaLlamaForCausalLM"],
        "mm_vision_tower": str(vision),
        "mm_hidden_size": VISION,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "image_aspect_ratio": "pad",
    }
    first = linear("model.mm_projector.0", HIDDEN, VISION)
    second = projector("model.mm_projector.2", HIDDEN)
    write(folder, config, {**decoder(), **first, **second})
    write_tokenizer(folder, tokenizer)


def write_shikra(folder: Path, vision: Path, tokenizer: Path) -> None:
    """Write a Shikra: 256 image tokens from a projector of one layer."""
    config = {
        **LLAMA,
        "model_type": "shikra",
        "architectures": ["ShikraLlamaForCausalLM"],
        "mm_vision_tower": str(vision),
        "mm_hidden_size": SHIKRA_VISION,
        "mm_vision_select_layer": -2,
        "use_mm_proj": True,
    }
    write(folder, config, {**decoder(), **projector("model.mm_projector", SHIKRA_VISION)})
    write_tokenizer(folder, tokenizer)


def write_llama(folder: Path, tokenizer: Path) -> None:
    """Write a plain LLaMA, as MiniGPT-4 and InstructBLIP load it."""
    write(
        folder, {**LLAMA, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}, decoder()
    )
    write_tokenizer(folder, tokenizer)


def write_queries(folder: Path) -> None:
    """Write what MiniGPT-4 and InstructBLIP load beside a LLaMA: 32 queries' projector, BERT."""
    bert = {
        "model_type": "bert",
        "hidden_size": QFORMER,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "vocab_size": 64,
    }
    words = {"bert.embeddings.word_embeddings.weight": random(64, QFORMER)}
    write(folder / "bert", bert, words)
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    (folder / "bert" / "vocab.txt").write_text("\n".join((*special, "is", "there", "image")))
    torch.save({}, folder / "eva_vit_g.pth")
    # PAI and VCD leave the norm as it was allocated unless a checkpoint has it.
    norm = {"ln_vision.weight": torch.ones(EVA), "ln_vision.bias": torch.zeros(EVA)}
    torch.save({"model": norm}, folder / "blip2_pretrained_flant5xxl.pth")
    torch.save({"model": projector("llama_proj", QFORMER)}, folder / "minigpt4.pth")
    instructblip = {"model": {**norm, **projector("llm_proj", QFORMER)}}
    torch.save(instructblip, folder / "instruct_blip_vicuna7b_trimmed.pth")
