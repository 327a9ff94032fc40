"""Code that keeps EAH from acting, and files that were overwritten: what users are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from rows import LLAVA, PAI, VCD

PAI_PATCHED: Final = replace(
    PAI,
    name="PAI, with EAH at a layer that PAI patches",
    settings={"EAH_LAYERS": "2"},
    expects="layer 2 did not run through EAH: its forward was replaced by attention.",
    found="attention.py:128",
)
XFORMERS: Final = replace(
    VCD,
    name="VCD's LLaVA with LLaVA's xformers patch",
    script=".xformers_patch.py",
    arguments=(
        "{checkouts}/LLaVA/llava/train/llama_xformers_attn_monkey_patch.py",
        "{checkout}/experiments/eval/object_hallucination_vqa_llava.py",
        *VCD.arguments,
    ),
    expects="LlamaAttention.forward was replaced by llama_xformers_attn_monkey_patch",
)
OVERWRITTEN: Final = replace(
    LLAVA,
    name="LLaVA, modeling_llama.py overwritten without its original",
    keeps_original=False,
    expects="python -m eah.swap",
)
ROWS: Final = (PAI_PATCHED, XFORMERS, OVERWRITTEN)
