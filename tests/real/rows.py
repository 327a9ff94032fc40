"""The scripts of LLaVA, VCD, PAI and Shikra."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from row import AUTOCAST, QUERY_EDITS, Row

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
PAI_MINIGPT4: Final = replace(
    PAI,
    name="PAI `pope_eval --model minigpt4`",
    arguments=("--model=minigpt4", *PAI_ARGUMENTS),
    edits=(
        *PAI_EDITS,
        *QUERY_EDITS,
        ("minigpt4/models/base_model.py", *AUTOCAST),
        ("minigpt4/models/minigpt4.py", "google-bert/bert-base-uncased", "{work}/bert"),
        (
            "minigpt4/eval_config/minigpt4_eval.yaml",
            "/path/to/models/minigpt4/prerained_minigpt4_7b.pth",
            "{work}/minigpt4.pth",
        ),
        (
            "minigpt4/configs/models/minigpt4_vicuna0.yaml",
            "/path/to/models/vision-cair-vicuna-7b",
            "{work}/vicuna-7b",
        ),
    ),
    projectors=("llama_proj",),
)
SHIKRA: Final = Row("Shikra's model", "shikra", "4.29.2", ".shikra_model.py", ("{work}",))
ROWS: Final = (LLAVA, VCD, SHIKRA, PAI, PAI_SHIKRA, PAI_MINIGPT4)
