"""Families with sparse attention, which `eah.enable` refuses."""

from __future__ import annotations

from typing import Any

from tests.eah.families.case import (
    IMAGE,
    SPARSE,
    TEXT,
    VIDEO,
    Family,
    Settings,
    tiny,
)

LATENT: Settings = {
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
    "index_topk": 4,
    "index_head_dim": 8,
    "index_n_heads": 2,
}
EXPERTS: Settings = {
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
}


def _text(model_type: str, model: str, **settings: Any) -> Family:
    """Return a language model of a sparse attention family."""
    return Family(
        model_type,
        tiny(
            model_type,
            text=None,
            vision=None,
            model=model,
            **{**TEXT, **LATENT, **EXPERTS, **settings},
        ),
        refused=SPARSE,
        note="a language model, without pictures",
    )


FAMILIES = (
    Family(
        "minimax_m3_vl",
        tiny(
            "minimax_m3_vl",
            text={
                "head_dim": 8,
                "rotary_dim": 4,
                "num_local_experts": 4,
                "num_experts_per_tok": 2,
                "dense_intermediate_size": 16,
                "shared_intermediate_size": 16,
                "index_n_heads": 2,
                "index_head_dim": 8,
                "index_block_size": 4,
                "index_topk_blocks": 1,
                "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"],
            },
            image_token_index=IMAGE,
            video_token_index=VIDEO,
        ),
        refused=SPARSE,
    ),
    _text("deepseek_v32", "DeepseekV32ForCausalLM"),
    _text("glm_moe_dsa", "GlmMoeDsaForCausalLM"),
    _text("axk2", "AXK2ForCausalLM", gated_norm_rank=4),
    _text("hy_v4", "HYV4ForCausalLM", hc_mult=2),
    Family(
        "mistral_large4",
        tiny(
            "mistral_large4",
            text={**LATENT, **EXPERTS},
            vision={"model_type": "pixtral"},
            image_token_index=IMAGE,
        ),
        refused=SPARSE,
    ),
    Family(
        "dots3_note",
        tiny(
            "dots3_note",
            text={**LATENT, **EXPERTS, "use_sliding_window": False, "head_dim": 12},
            vision={
                "mlp_layer_types": ["dense", "dense"],
                "per_layer_config": {},
                "adapter_in_dim": 32,
                "adapter_out_dim": 32,
            },
            audio_config={
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "adapter_input_size": 32,
                "adapter_out_dim": 32,
                "downsample_hidden_size": 8,
                "conv_output_size": 128,
            },
            image_token_id=IMAGE,
            video_token_id=VIDEO,
        ),
        refused=SPARSE,
    ),
    Family(
        "glm5_next",
        tiny(
            "glm5_next",
            text={
                **LATENT,
                **EXPERTS,
                "qk_rope_head_dim": 0,
                "index_kpool": 2,
                "hc_mult": 2,
                "layer_types": ["linear_attention", "indexed_attention", "indexed_attention"],
                "linear_head_dim": 8,
                "linear_num_heads": 4,
            },
            vision={"out_hidden_size": 32, "projection_intermediate_size": 32},
            image_token_id=IMAGE,
            video_token_id=VIDEO,
        ),
        layers=(1, 2),
        refused=SPARSE,
    ),
)
