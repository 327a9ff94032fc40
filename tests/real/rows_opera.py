"""OPERA's `pope_eval`, whose transformers is its own, and whose LLaMA is its own in two models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from row import AUTOCAST, Row, query_edits

CONFIGS: Final = "minigpt4/configs/models"
DATA: Final = "/mnt/petrelfs/share_data"
CLIP: Final = "openai/clip-vit-large-patch14"
ARGUMENTS: Final = (
    "--pope-type=random",
    "--data_path={work}/pictures",
    "--batch_size=2",
    "--beam=2",
)
EDITS: Final = (
    ("pope_eval.py", "pope_coco/coco_pope_random.json", "{work}/questions.jsonl"),
    *((f"minigpt4/models/{file}.py", *AUTOCAST) for file in ("blip2", "llava", "modeling_shikra")),
)
QUERY_EDITS: Final = query_edits("minigpt4", "minigpt4/models/blip2.py", "bert-base-uncased")
LLAVA: Final = Row(
    "OPERA `pope_eval --model llava-1.5`",
    "OPERA",
    "4.29.2",
    "pope_eval.py",
    ("--model=llava-1.5", *ARGUMENTS),
    edits=(
        *EDITS,
        (
            "eval_configs/llava-1.5_eval.yaml",
            f"{DATA}/huangqidong/lvlm/llava-v1.5-7b/",
            "{work}/llava-v1.5-7b",
        ),
        (f"{CONFIGS}/llava-1.5_vicuna7b.yaml", f"{CLIP}-336", "{work}/clip-336"),
    ),
    vendored="transformers-4.29.2/src",
    beams=2,
)
SHIKRA: Final = replace(
    LLAVA,
    name="OPERA `pope_eval --model shikra`",
    arguments=("--model=shikra", *ARGUMENTS),
    edits=(
        *EDITS,
        (
            "eval_configs/shikra_eval.yaml",
            f"{DATA}/zhaohanqing/merged_shikra_7B/",
            "{work}/shikra-7b",
        ),
        (f"{CONFIGS}/shikra_vicuna7b.yaml", CLIP, "{work}/clip-224"),
    ),
)
MINIGPT4: Final = replace(
    LLAVA,
    name="OPERA `pope_eval --model minigpt4`, its modeling_llama swapped",
    arguments=("--model=minigpt4", *ARGUMENTS),
    edits=(
        *EDITS,
        *QUERY_EDITS,
        (
            f"{CONFIGS}/minigpt4_vicuna0.yaml",
            f"{DATA}/wangbin/mllm/minigpt4/vicuna-7b-v0",
            "{work}/vicuna-7b",
        ),
        (
            "eval_configs/minigpt4_eval.yaml",
            f"{DATA}/huangqidong/lvlm/minigpt4/prerained_minigpt4_7b.pth",
            "{work}/minigpt4.pth",
        ),
    ),
    projectors=("llama_proj",),
    file="minigpt4/models/modeling_llama.py",
    found="minigpt4/models/modeling_llama.py",
)
INSTRUCTBLIP: Final = replace(
    MINIGPT4,
    name="OPERA `pope_eval --model instructblip`, its modeling_llama swapped",
    arguments=("--model=instructblip", *ARGUMENTS),
    edits=(
        *EDITS,
        *QUERY_EDITS,
        (
            f"{CONFIGS}/blip2_instruct_vicuna7b.yaml",
            f"{DATA}/wangbin/mllm/minigpt4/vicuna-7b-v1-1",
            "{work}/vicuna-7b",
        ),
    ),
    projectors=("llm_proj",),
)
UNREACHED: Final = tuple(
    replace(row, name=row.name.replace("its modeling_llama", "transformers"), file=None)
    for row in (MINIGPT4, INSTRUCTBLIP)
)
ROWS: Final = (
    LLAVA,
    SHIKRA,
    MINIGPT4,
    INSTRUCTBLIP,
    *(replace(row, expects="nothing") for row in UNREACHED),
)
