"""Small random checkpoints in exactly the layouts of the original files, keys written out.

Nothing here is taken from the loader: names, nesting and shapes are those of the files that
LAVIS, MiniGPT-4, LLaVA, Shikra, CLIP and Vicuna publish, only smaller.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.models.toys import PIECES, TOKENIZER, write_bert_vocabulary

Tensors = dict[str, torch.Tensor]

WIDTH, HEADS, MLP, LAYERS = 64, 4, 128, 3  # language model
TOWER, TOWER_HEADS, TOWER_MLP, BLOCKS = 24, 3, 40, 2  # EVA and CLIP (one layer more)
Q_WIDTH, Q_HEADS, Q_MLP, Q_LAYERS, QUERIES, Q_VOCABULARY = 32, 4, 48, 4, 5, 60
IMAGE, PATCH = 28, 14


@dataclass
class Maker:
    """Makes random tensors of one file, each different."""

    seed: int
    tensors: Tensors = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def add(self, name: str, *shape: int, scale: float = 0.2, offset: float = 0.0) -> None:
        self.tensors[name] = torch.randn(shape, generator=self.generator) * scale + offset

    def linear(self, name: str, out: int, into: int, scale: float = 0.2) -> None:
        self.add(f"{name}.weight", out, into, scale=scale)
        self.add(f"{name}.bias", out, scale=scale)

    def norm(self, name: str, width: int) -> None:
        self.add(f"{name}.weight", width, scale=0.1, offset=1.0)
        self.add(f"{name}.bias", width)


def llm_tensors(rows: int, *, projector: str | None = None, seed: int = 1) -> Tensors:
    """Return a LLaMA; projector "llava" (two layers) or "shikra" (one)."""
    make = Maker(seed)
    make.add("model.embed_tokens.weight", rows, WIDTH, scale=0.5)
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            make.add(f"{layer}.self_attn.{name}.weight", WIDTH, WIDTH)
        make.add(f"{layer}.self_attn.rotary_emb.inv_freq", WIDTH // HEADS // 2)
        make.add(f"{layer}.mlp.gate_proj.weight", MLP, WIDTH)
        make.add(f"{layer}.mlp.up_proj.weight", MLP, WIDTH)
        make.add(f"{layer}.mlp.down_proj.weight", WIDTH, MLP)
        make.add(f"{layer}.input_layernorm.weight", WIDTH, scale=0.1, offset=1.0)
        make.add(f"{layer}.post_attention_layernorm.weight", WIDTH, scale=0.1, offset=1.0)
    make.add("model.norm.weight", WIDTH, scale=0.1, offset=1.0)
    make.add("lm_head.weight", rows, WIDTH, scale=0.05)
    if projector == "llava":
        make.linear("model.mm_projector.0", WIDTH, TOWER)
        make.linear("model.mm_projector.2", WIDTH, WIDTH)
    elif projector == "shikra":
        make.linear("model.mm_projector", WIDTH, TOWER)
    return make.tensors


def clip_tensors(seed: int = 2) -> Tensors:
    """Return CLIP whole: the vision half as it is used, and enough of the rest."""
    make = Maker(seed)
    make.add("vision_model.embeddings.class_embedding", TOWER)
    make.add("vision_model.embeddings.patch_embedding.weight", TOWER, 3, PATCH, PATCH, scale=0.05)
    make.add("vision_model.embeddings.position_embedding.weight", (IMAGE // PATCH) ** 2 + 1, TOWER)
    make.norm("vision_model.pre_layrnorm", TOWER)
    for i in range(BLOCKS + 1):
        layer = f"vision_model.encoder.layers.{i}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            make.linear(f"{layer}.self_attn.{name}", TOWER, TOWER)
        make.norm(f"{layer}.layer_norm1", TOWER)
        make.linear(f"{layer}.mlp.fc1", TOWER_MLP, TOWER)
        make.linear(f"{layer}.mlp.fc2", TOWER, TOWER_MLP)
        make.norm(f"{layer}.layer_norm2", TOWER)
    make.norm("vision_model.post_layernorm", TOWER)
    make.tensors["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    make.tensors["text_model.embeddings.position_ids"] = torch.arange(7)[None]
    make.add("text_model.embeddings.token_embedding.weight", 9, 8)
    make.norm("text_model.final_layer_norm", 8)
    make.add("visual_projection.weight", 6, TOWER)
    make.add("text_projection.weight", 6, 8)
    make.tensors["logit_scale"] = torch.tensor(4.6)
    return make.tensors


def eva_tensors(blocks: int = BLOCKS + 1, prefix: str = "", seed: int = 3) -> Tensors:
    """Return EVA ViT-g with one block more than is used.

    Its positions are small: the eps of the norm behind the tower shows in them.
    """
    make = Maker(seed)
    make.add(f"{prefix}cls_token", 1, 1, TOWER, scale=0.02)
    make.add(f"{prefix}pos_embed", 1, (IMAGE // PATCH) ** 2 + 1, TOWER, scale=0.02)
    make.add(f"{prefix}patch_embed.proj.weight", TOWER, 3, PATCH, PATCH, scale=0.001)
    make.add(f"{prefix}patch_embed.proj.bias", TOWER, scale=0.02)
    for i in range(blocks):
        block = f"{prefix}blocks.{i}"
        make.norm(f"{block}.norm1", TOWER)
        make.add(f"{block}.attn.q_bias", TOWER)
        make.add(f"{block}.attn.v_bias", TOWER)
        make.add(f"{block}.attn.qkv.weight", 3 * TOWER, TOWER)
        make.linear(f"{block}.attn.proj", TOWER, TOWER, scale=0.01)
        make.norm(f"{block}.norm2", TOWER)
        make.linear(f"{block}.mlp.fc1", TOWER_MLP, TOWER)
        make.linear(f"{block}.mlp.fc2", TOWER, TOWER_MLP, scale=0.01)
    return make.tensors


def qformer_tensors(*, text: bool, seed: int = 4) -> Tensors:
    """Return queries, the norm before the Q-Former, and the Q-Former, with its text half or not."""
    make = Maker(seed)
    make.add("query_tokens", 1, QUERIES, Q_WIDTH)
    make.norm("ln_vision", TOWER)
    bert = "Qformer.bert"
    make.tensors[f"{bert}.embeddings.position_ids"] = torch.arange(512)[None]
    if text:
        make.add(f"{bert}.embeddings.word_embeddings.weight", Q_VOCABULARY, Q_WIDTH)
        make.add(f"{bert}.embeddings.position_embeddings.weight", 512, Q_WIDTH)
    make.norm(f"{bert}.embeddings.LayerNorm", Q_WIDTH)
    for i in range(Q_LAYERS):
        layer = f"{bert}.encoder.layer.{i}"
        for attention, seen in (("attention", Q_WIDTH), ("crossattention", TOWER)):
            if attention == "crossattention" and i % 2:
                continue
            make.linear(f"{layer}.{attention}.self.query", Q_WIDTH, Q_WIDTH)
            make.linear(f"{layer}.{attention}.self.key", Q_WIDTH, seen)
            make.linear(f"{layer}.{attention}.self.value", Q_WIDTH, seen)
            make.linear(f"{layer}.{attention}.output.dense", Q_WIDTH, Q_WIDTH)
            make.norm(f"{layer}.{attention}.output.LayerNorm", Q_WIDTH)
        for suffix in ("", "_query") if text else ("_query",):
            make.linear(f"{layer}.intermediate{suffix}.dense", Q_MLP, Q_WIDTH)
            make.linear(f"{layer}.output{suffix}.dense", Q_WIDTH, Q_MLP)
            make.norm(f"{layer}.output{suffix}.LayerNorm", Q_WIDTH)
    return make.tensors


def linear_tensors(name: str, out: int, into: int, seed: int) -> Tensors:
    """Return weight and bias of one layer."""
    make = Maker(seed)
    make.linear(name, out, into)
    return make.tensors


def write_llm(
    folder: Path, tensors: Tensors, model_type: str = "llama", *, safe: bool = False
) -> Path:
    """Write a language model's folder in two shards, with the config of the old repositories."""
    folder.mkdir(parents=True)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": model_type,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "vocab_size": len(tensors["lm_head.weight"]),
        "max_sequence_length": 2048,
        "rms_norm_eps": 1e-06,
        # wrong for the tokenizer, as MiniGPT-4's and LAVIS's users report of Vicuna's folders
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": -1,
        "torch_dtype": "float16",
    }
    if model_type != "llama":
        config |= {"mm_vision_tower": "openai/clip", "use_mm_proj": True, "mm_hidden_size": TOWER}
        config |= {"mm_vision_select_layer": -2}
    (folder / "config.json").write_text(json.dumps(config))
    names = list(tensors)
    half = len(names) // 2
    index = {}
    for number, part in enumerate((names[:half], names[half:]), start=1):
        chosen = {name: tensors[name].contiguous() for name in part}
        if safe:
            file = f"model-{number:05}-of-00002.safetensors"
            save_file(chosen, folder / file)
        else:
            file = f"pytorch_model-{number:05}-of-00002.bin"
            torch.save(chosen, folder / file)
        index |= dict.fromkeys(part, file)
    name = "model.safetensors" if safe else "pytorch_model.bin"
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    shutil.copyfile(TOKENIZER, folder / "tokenizer.model")
    return folder


def write_clip(folder: Path, tensors: Tensors) -> Path:
    """Write CLIP's folder, both halves in one file."""
    folder.mkdir(parents=True)
    vision = {"hidden_size": TOWER, "num_hidden_layers": BLOCKS + 1, "patch_size": PATCH}
    vision |= {"num_attention_heads": TOWER_HEADS, "intermediate_size": TOWER_MLP}
    vision |= {"image_size": IMAGE, "model_type": "clip_vision_model", "hidden_act": "quick_gelu"}
    config = {"model_type": "clip", "vision_config": vision, "text_config": {"hidden_size": 8}}
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


@dataclass(frozen=True)
class Original:
    """The parts of a model as its authors publish them, and all their tensors."""

    family: str
    parts: dict[str, str]
    tensors: dict[str, Tensors]


def write_original(family: str, root: Path) -> Original:
    """Write the original files of a model."""
    tensors: dict[str, Tensors] = {}
    if family in ("llava-1.5", "shikra"):
        rows = PIECES + (3 if family == "shikra" else 0)
        projector = "shikra" if family == "shikra" else "llava"
        tensors["llm"] = llm_tensors(rows, projector=projector)
        tensors["vision"] = clip_tensors()
    else:
        tensors["llm"] = llm_tensors(PIECES + (family == "minigpt4"))
        tensors["vision"] = eva_tensors()
        tensors["qformer"] = qformer_tensors(text=family == "instructblip")
        if family == "instructblip":
            tensors["qformer"] |= linear_tensors("llm_proj", WIDTH, Q_WIDTH, 5)
        else:
            tensors["qformer"] |= linear_tensors("t5_proj", 16, Q_WIDTH, 6)
            tensors["projector"] = linear_tensors("llama_proj", WIDTH, Q_WIDTH, 7)
    return Original(family, write_parts(family, tensors, root), tensors)


def write_parts(family: str, tensors: dict[str, Tensors], root: Path) -> dict[str, str]:
    """Write tensors by part in the files that hold them."""
    root.mkdir(parents=True, exist_ok=True)
    types = {"llava-1.5": "llava", "shikra": "shikra"}
    parts = {"llm": str(write_llm(root / "llm", tensors["llm"], types.get(family, "llama")))}
    if family in types:
        return {**parts, "vision": str(write_clip(root / "clip", tensors["vision"]))}
    torch.save(tensors["vision"], root / "eva_vit_g.pth")
    name = "instruct_blip_vicuna7b_trimmed" if family == "instructblip" else "blip2_flant5xxl"
    torch.save({"model": tensors["qformer"]}, root / f"{name}.pth")
    parts |= {"vision": str(root / "eva_vit_g.pth"), "qformer": str(root / f"{name}.pth")}
    if family == "minigpt4":
        runner = {
            "model": tensors["projector"],
            "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}},
            "config": {"run": {"lr": [1e-4, 1e-5], "name": "stage2"}},
            "scaler": {"scale": 65536.0},
            "epoch": 4,
        }
        torch.save(runner, root / "pretrained_minigpt4_7b.pth")
        parts["projector"] = str(root / "pretrained_minigpt4_7b.pth")
    else:
        parts["qformer_tokenizer"] = str(write_bert_vocabulary(root / "bert"))
    return parts
