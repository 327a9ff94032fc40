"""Which tensor becomes which parameter, for every original file of the paper's models.

One `PartRules` per kind of file. Parameters are named as transformers' classes have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from models.checkpoints.plan import PartRules, Rule, rename_rules

with torch.device("meta"):
    _TOWER = CLIPVisionModel(CLIPVisionConfig(num_hidden_layers=0))
# Releases of transformers 5 have one level fewer in CLIP's vision tower.
CLIP_LEVEL: Final = "vision_model." if hasattr(_TOWER, "vision_model") else ""

# Buffers that older versions of transformers saved; they are computed when a model is built.
BUFFERS: Final = ("position_ids", "{rest}.position_ids", "{rest}.rotary_emb.inv_freq")

LLAVA_LLM: Final = (
    Rule("model.embed_tokens.weight", "model.language_model.embed_tokens.weight"),
    Rule("model.layers.{rest}", "model.language_model.layers.{rest}"),
    Rule("model.norm.weight", "model.language_model.norm.weight"),
    Rule("lm_head.weight", "lm_head.weight"),
)
CLIP_TOWER: Final = f"model.vision_tower.{CLIP_LEVEL}"
CLIP_FILE: Final = PartRules(
    rules=(Rule("vision_model.{rest}", CLIP_TOWER + "{rest}"),),
    # CLIP's text model and the projections that compare text and image.
    ignored=(
        *BUFFERS,
        "text_model.{rest}",
        "text_projection.weight",
        "visual_projection.weight",
        "logit_scale",
    ),
)

LLAVA_SHARDS: Final = PartRules(
    rules=(
        Rule("model.mm_projector.0.{p}", "model.multi_modal_projector.linear_1.{p}"),
        Rule("model.mm_projector.2.{p}", "model.multi_modal_projector.linear_2.{p}"),
        # Some training checkpoints also contain CLIP, which was frozen.
        Rule("model.vision_tower.vision_tower.vision_model.{rest}", CLIP_TOWER + "{rest}"),
        *LLAVA_LLM,
    ),
    ignored=BUFFERS,
)
SHIKRA_SHARDS: Final = PartRules(
    rules=(Rule("model.mm_projector.{p}", "model.multi_modal_projector.{p}"), *LLAVA_LLM),
    ignored=BUFFERS,
)

VICUNA: Final = PartRules(
    rules=(
        Rule("model.{rest}", "language_model.model.{rest}"),
        Rule("lm_head.weight", "language_model.lm_head.weight"),
    ),
    ignored=BUFFERS,
)


def eva_rules(prefix: str) -> tuple[Rule, ...]:
    """Return the rules of EVA ViT-g, whose keys have no bias."""
    block, layer = prefix + "blocks.{i}.", "vision_model.encoder.layers.{i}."
    embeddings = "vision_model.embeddings."
    return (
        Rule(prefix + "cls_token", embeddings + "class_embedding"),
        Rule(prefix + "pos_embed", embeddings + "position_embedding"),
        Rule(prefix + "patch_embed.proj.{p}", embeddings + "patch_embedding.{p}"),
        Rule(block + "norm1.{p}", layer + "layer_norm1.{p}"),
        Rule(block + "norm2.{p}", layer + "layer_norm2.{p}"),
        Rule(block + "attn.qkv.weight", layer + "self_attn.qkv.weight"),
        Rule(block + "attn.q_bias", layer + "self_attn.qkv.bias", qkv_slot=0),
        Rule(block + "attn.v_bias", layer + "self_attn.qkv.bias", qkv_slot=2),
        Rule(block + "attn.proj.{p}", layer + "self_attn.projection.{p}"),
        Rule(block + "mlp.fc1.{p}", layer + "mlp.fc1.{p}"),
        Rule(block + "mlp.fc2.{p}", layer + "mlp.fc2.{p}"),
    )


# The file has 40 blocks; BLIP-2 and its successors use the first 39.
EVA_SURPLUS: Final = ("vision_model.encoder.layers.{i}.{rest}",)
EVA_FILE: Final = PartRules(rules=eva_rules(""), surplus=EVA_SURPLUS)

LAYER: Final = ("Qformer.bert.encoder.layer.{i}.", "qformer.encoder.layer.{i}.")
ATTENTIONS: Final = ("attention", "crossattention")
QFORMER: Final = (
    Rule("query_tokens", "query_tokens"),
    Rule("ln_vision.{p}", "vision_model.post_layernorm.{p}"),
    *(
        Rule(f"{LAYER[0]}{kind}.output.{name}.{{p}}", f"{LAYER[1]}{kind}.output.{name}.{{p}}")
        for kind in ATTENTIONS
        for name in ("dense", "LayerNorm")
    ),
    *(
        Rule(f"{LAYER[0]}{kind}.self.{name}.{{p}}", f"{LAYER[1]}{kind}.attention.{name}.{{p}}")
        for kind in ATTENTIONS
        for name in ("query", "key", "value")
    ),
    *rename_rules(
        *LAYER,
        ("intermediate_query.dense.{p}", "output_query.dense.{p}", "output_query.LayerNorm.{p}"),
    ),
)
QFORMER_TEXT: Final = (
    *rename_rules(*LAYER, ("intermediate.dense.{p}", "output.dense.{p}", "output.LayerNorm.{p}")),
    *rename_rules(
        "Qformer.bert.embeddings.",
        "qformer.embeddings.",
        ("word_embeddings.weight", "position_embeddings.weight"),
    ),
)
# The head that the Q-Former was pretrained with.
QFORMER_HEAD: Final = "Qformer.cls.{rest}"

INSTRUCTBLIP_FILE: Final = PartRules(
    rules=(
        *QFORMER,
        *QFORMER_TEXT,
        Rule("Qformer.bert.embeddings.LayerNorm.{p}", "qformer.embeddings.layernorm.{p}"),
        Rule("llm_proj.{p}", "language_projection.{p}"),
        *eva_rules("visual_encoder."),
    ),
    ignored=(*BUFFERS, QFORMER_HEAD),
    surplus=EVA_SURPLUS,
)
BLIP2_FILE: Final = PartRules(
    rules=(
        *QFORMER,
        Rule("Qformer.bert.embeddings.LayerNorm.{p}", "qformer.layernorm.{p}"),
        *eva_rules("visual_encoder."),
    ),
    # BLIP-2's language model and the Q-Former's text layers, which MiniGPT-4 removes.
    ignored=(
        *BUFFERS,
        QFORMER_HEAD,
        "t5_proj.{p}",
        "t5_model.{rest}",
        *(rule.source for rule in QFORMER_TEXT),
    ),
    surplus=EVA_SURPLUS,
)
MINIGPT4_FILE: Final = PartRules(rules=(Rule("llama_proj.{p}", "language_projection.{p}"),))

# By model family: the parts of its original files, in reading order. Tensors of a later part
# replace those of an earlier one.
LAYOUTS: Final[dict[str, Mapping[str, PartRules]]] = {
    "llava-1.5": {"vision": CLIP_FILE, "llm": LLAVA_SHARDS},
    "shikra": {"vision": CLIP_FILE, "llm": SHIKRA_SHARDS},
    "instructblip": {"vision": EVA_FILE, "qformer": INSTRUCTBLIP_FILE, "llm": VICUNA},
    "minigpt4": {
        "vision": EVA_FILE,
        "qformer": BLIP2_FILE,
        "projector": MINIGPT4_FILE,
        "llm": VICUNA,
    },
}

# LLaVA's parameter names on disk, which transformers reads from 4.37 on whatever their names in
# memory. Models with a Q-Former use the same names in both.
SAVED_NAMES: Final = {
    "model.language_model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
    CLIP_TOWER: "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}


def saved_name(parameter: str) -> str:
    """Return a parameter's name on disk, in a folder in transformers' format."""
    for start, saved in SAVED_NAMES.items():
        if parameter.startswith(start):
            return saved + parameter.removeprefix(start)
    return parameter
