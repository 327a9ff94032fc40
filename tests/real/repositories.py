"""The repositories: which script is run, on which transformers, and what must be changed for it.

Edits put paths of this machine in the place of the authors' own, where their code offers no other
way, and make parts tiny that no checkpoint decides. A text before the edit is as short as finds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

COMMON: Final = ("cv2", "decord", "iopath", "nltk", "peft", "timm", "torchvision")
COMMON_DATA: Final = ("datasets", "matplotlib", "mmengine", "pandas", "scipy", "skimage", "wandb")
STUBS: Final = (*COMMON, *COMMON_DATA, "visual_genome", "webdataset")


@dataclass(frozen=True)
class Row:
    """One script of one repository.

    Attributes:
        name: What the table calls it.
        folder: Sub-folder of the folder with checkouts.
        transformers: The version, whose environment is `transformers-VERSION`.
        script: In the checkout, or beside this file with a leading dot.
        arguments: Of the script; {work} is the folder with checkpoints and pictures.
        edits: File, a text in it, and what it becomes, in a copy of the checkout.
        projectors: Attributes under which its models keep their projectors.
        start: Folder that the script is started in.
        folder_made: Folder that it wants to be there.
        paths: Folders of the checkout that Python imports from.
        vendored: Folder of its own transformers, to be swapped in the place of the installed one.
        file: Its own modeling_llama.py, to be swapped in the place of transformers' one.
        settings: Environment variables of the swapped states.
        error: What the swapped run says when it refuses; None where it has to act.
        keeps_original: Whether the swap keeps the original, unlike an overwritten file.
        after: Script that scores the answers, and its arguments.
    """

    name: str
    folder: str
    transformers: str
    script: str
    arguments: tuple[str, ...] = ()
    edits: tuple[tuple[str, str, str], ...] = ()
    projectors: tuple[str, ...] = ("mm_projector",)
    start: str = "."
    folder_made: str | None = None
    paths: tuple[str, ...] = (".",)
    vendored: str | None = None
    file: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    keeps_original: bool = True
    after: tuple[str, ...] = ()


SOURCES: Final = {  # folder: repository and the commit that was tried
    "LLaVA": ("haotian-liu/LLaVA", "c121f04"),
    "VCD": ("DAMO-NLP-SG/VCD", "d6568ff"),
    "PAI": ("LALBJ/PAI", "9bbd8bd"),
    "OPERA": ("shikiw/OPERA", "61426ef"),
    "shikra": ("shikras/shikra", "ff79a4c"),
}

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
LLAVA_CHECKPOINT: Final = "/mnt/petrelfs/share_data/huangqidong/lvlm/llava-v1.5-7b/"
SHIKRA_CHECKPOINT: Final = "/mnt/petrelfs/share_data/zhaohanqing/merged_shikra_7B/"
CLIP: Final = "openai/clip-vit-large-patch14"
MODELS: Final = "minigpt4/configs/models"
# On a GPU OPERA computes under autocast; on a CPU it would mix dtypes.
AUTOCAST: Final = ("contextlib.nullcontext()", "torch.autocast('cpu', dtype=dtype)")
OPERA_EDITS: Final = (
    ("pope_eval.py", "pope_coco/coco_pope_random.json", "{work}/questions.jsonl"),
    *((f"minigpt4/models/{file}.py", *AUTOCAST) for file in ("blip2", "llava", "modeling_shikra")),
)
OPERA: Final = Row(
    "OPERA `pope_eval --model llava-1.5`",
    "OPERA",
    "4.29.2",
    "pope_eval.py",
    ("--model=llava-1.5", *OPERA_ARGUMENTS),
    edits=(
        *OPERA_EDITS,
        ("eval_configs/llava-1.5_eval.yaml", LLAVA_CHECKPOINT, "{work}/llava-v1.5-7b"),
        (f"{MODELS}/llava-1.5_vicuna7b.yaml", f"{CLIP}-336", "{work}/clip-336"),
    ),
    vendored="transformers-4.29.2/src",
)
OPERA_SHIKRA: Final = Row(
    "OPERA `pope_eval --model shikra`",
    "OPERA",
    "4.29.2",
    "pope_eval.py",
    ("--model=shikra", *OPERA_ARGUMENTS),
    edits=(
        *OPERA_EDITS,
        ("eval_configs/shikra_eval.yaml", SHIKRA_CHECKPOINT, "{work}/shikra-7b"),
        (f"{MODELS}/shikra_vicuna7b.yaml", CLIP, "{work}/clip-224"),
    ),
    vendored="transformers-4.29.2/src",
)
PAI_SHIKRA: Final = replace(
    PAI, name="PAI `pope_eval --model shikra`", arguments=("--model=shikra", *PAI_ARGUMENTS)
)
ROWS: Final = (LLAVA, VCD, PAI, PAI_SHIKRA, OPERA, OPERA_SHIKRA)
