"""The scripts and models of LLaVA, VCD, PAI, Shikra, MiniGPT-4 and LAVIS."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from row import AUTOCAST, Row, query_edits

LLAVA: Final = Row(
    "LLaVA `model_vqa_loader`",
    "LLaVA",
    "4.37.2",
    "llava/eval/model_vqa_loader.py",
    (
        "--model-path={work}/llava-v1.5-7b",
        "--image-folder={work}/pictures",
        "--question-file={work}/questions.jsonl",
        "--answers-file={work}/answers.jsonl",
        "--temperature=0",
    ),
)
VCD: Final = Row(
    "VCD `object_hallucination_vqa_llava` and `eval_pope`",
    "VCD",
    "4.31.0",
    "experiments/eval/object_hallucination_vqa_llava.py",
    (*LLAVA.arguments[:4], "--use_cd", "--cd_alpha=1", "--cd_beta=0.1"),
    paths=(".", "experiments"),
    after=(
        "experiments/eval/eval_pope.py",
        "--gt_files={work}/questions.jsonl",
        "--gen_files={work}/answers.jsonl",
    ),
)
PAI_EDITS: Final = (
    ("model_loader.py", "/path/to/models/llava-v1.5-7b", "{work}/llava-v1.5-7b"),
    ("mllm/config/config.yml", "/path/to/models/shikra-7b", "{work}/shikra-7b"),
    ("mllm/config/config.yml", "openai/clip-vit-large-patch14", "{work}/clip-224"),
    ("constants.py", "./pope_coco/chat/coco_pope_chat_random.json", "{work}/chat.jsonl"),
)
PAI_ARGUMENTS: Final = (
    "--pope-type=random",
    "--data-path={work}/pictures",
    "--batch-size=2",
    "--use-attn",
    "--use-cfg",
    "--gamma=1.1",
    "--start-layer=2",
    "--end-layer=4",
)
PAI: Final = Row(
    "PAI `pope_eval --model llava-1.5`",
    "PAI",
    "4.37.0",
    "pope_eval.py",
    ("--model=llava-1.5", *PAI_ARGUMENTS),
    edits=PAI_EDITS,
    folder_made="pope",
)
OPERA_ARGUMENTS: Final = ("--pope-type=random", "--data_path={work}/pictures", "--beam=2")
PAI_SHIKRA: Final = replace(
    PAI, name="PAI `pope_eval --model shikra`", arguments=("--model=shikra", *PAI_ARGUMENTS)
)
VICUNA: Final = "minigpt4/configs/models/minigpt4_vicuna0.yaml"
PAI_MINIGPT4: Final = replace(
    PAI,
    name="PAI `pope_eval --model minigpt4`",
    arguments=("--model=minigpt4", *PAI_ARGUMENTS),
    edits=(
        *PAI_EDITS,
        *query_edits("minigpt4", "minigpt4/models/minigpt4.py", "google-bert/bert-base-uncased"),
        ("minigpt4/models/base_model.py", *AUTOCAST),
        (
            "minigpt4/eval_config/minigpt4_eval.yaml",
            "/path/to/models/minigpt4/prerained_minigpt4_7b.pth",
            "{work}/minigpt4.pth",
        ),
        (VICUNA, "/path/to/models/vision-cair-vicuna-7b", "{work}/vicuna-7b"),
    ),
    projectors=("llama_proj",),
)
SHIKRA: Final = Row("Shikra's model", "shikra", "4.29.2", ".shikra_model.py", ("{work}",))
MINIGPT4_CONFIG: Final = "eval_configs/minigpt4_eval.yaml"
SET_THIS: Final = "please set this value to the path of "
MINIGPT4: Final = Row(
    "MiniGPT-4's model",
    "MiniGPT-4",
    "4.30.0",
    ".minigpt4_model.py",
    ("{work}", MINIGPT4_CONFIG),
    edits=(
        *query_edits("minigpt4", "minigpt4/models/minigpt4.py", "bert-base-uncased"),
        ("minigpt4/models/base_model.py", *AUTOCAST),
        (MINIGPT4_CONFIG, f"{SET_THIS}pretrained checkpoint", "{work}/minigpt4.pth"),
        (MINIGPT4_CONFIG, "low_resource: True", "low_resource: False"),
        (VICUNA, f"{SET_THIS}vicuna model", "{work}/vicuna-7b"),
    ),
    projectors=("llama_proj",),
)
BLIP2: Final = "lavis/models/blip2_models"
VICUNA_CONFIG: Final = "lavis/configs/models/blip2/blip2_instruct_vicuna7b.yaml"
LAVIS: Final = Row(
    "LAVIS' InstructBLIP, its modeling_llama swapped",
    "LAVIS",
    "4.33.2",
    ".lavis_model.py",
    ("{work}",),
    edits=(
        *query_edits("lavis", f"{BLIP2}/blip2.py", "bert-base-uncased"),
        (f"{BLIP2}/blip2.py", *AUTOCAST),
        (VICUNA_CONFIG, "./llm/vicuna-7b", "{work}/vicuna-7b"),
    ),
    projectors=("llm_proj",),
    file=f"{BLIP2}/modeling_llama.py",
    found=f"{BLIP2}/modeling_llama.py",
)
VCD_LAVIS: Final = "experiments/lavis/models/blip2_models"
VCD_CONFIG: Final = f"experiments/{VICUNA_CONFIG}"
VCD_INSTRUCTBLIP: Final = replace(
    VCD,
    name="VCD `object_hallucination_vqa_instructblip`, its modeling_llama swapped",
    script="experiments/eval/object_hallucination_vqa_instructblip.py",
    arguments=VCD.arguments[1:],
    edits=(
        *query_edits("experiments/lavis", f"{VCD_LAVIS}/blip2.py", "bert-base-uncased"),
        (f"{VCD_LAVIS}/blip2.py", *AUTOCAST),
        (VCD_CONFIG, "/mnt/workspace/ckpt/vicuna-7b-v1.1", "{work}/vicuna-7b"),
        (VCD_CONFIG, "./checkpoints", "{work}"),
    ),
    projectors=("llm_proj",),
    file=f"{VCD_LAVIS}/modeling_llama.py",
    found=f"{VCD_LAVIS}/modeling_llama.py",
)
ROWS: Final = (
    *(LLAVA, VCD, VCD_INSTRUCTBLIP, PAI, PAI_SHIKRA, PAI_MINIGPT4),
    *(SHIKRA, MINIGPT4, LAVIS),
)
