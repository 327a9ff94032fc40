"""What is known of a script of a repository: how it is run, and what must be changed for it.

Edits put paths of this machine in the place of the authors' own, where their code offers no other
way, and make parts tiny that no checkpoint decides. A text before the edit is as short as finds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
        arguments: Of the script; {work} is the folder with checkpoints and pictures, {checkout} the
            copy of the checkout, {checkouts} the folder with all of them.
        edits: File, a text in it, and what it becomes, in a copy of the checkout.
        projectors: Attributes under which its models keep their projectors.
        start: Folder that the script is started in.
        folder_made: Folder that it wants to be there.
        paths: Folders of the checkout that Python imports from.
        vendored: Folder of its own transformers, to be swapped in the place of the installed one.
        file: Its own modeling_llama.py, to be swapped in the place of transformers' one.
        settings: Environment variables of the swapped states.
        expects: What EAH does when swapped: "acts", "nothing" where the swap does not reach the
            model, or a text of the error that it stops with.
        keeps_original: Whether the swap keeps the original, unlike an overwritten file.
        beams: Rows of each prompt.
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
    expects: str = "acts"
    keeps_original: bool = True
    beams: int = 1
    after: tuple[str, ...] = ()


SOURCES: Final = {  # folder: repository and the commit that was tried
    "LLaVA": ("haotian-liu/LLaVA", "c121f04"),
    "VCD": ("DAMO-NLP-SG/VCD", "d6568ff"),
    "PAI": ("LALBJ/PAI", "9bbd8bd"),
    "OPERA": ("shikiw/OPERA", "61426ef"),
    "shikra": ("shikras/shikra", "ff79a4c"),
}

# On a GPU these models compute under autocast; on a CPU they would mix dtypes.
AUTOCAST: Final = ("contextlib.nullcontext()", "torch.autocast('cpu', dtype=dtype)")
EVA: Final = "minigpt4/models/eva_vit.py"
DOWNLOAD: Final = "minigpt4/common/dist_utils.py"
# MiniGPT-4's and InstructBLIP's vision: tiny, and read from {work} instead of downloaded.
QUERY_EDITS: Final = (
    (DOWNLOAD, "timm_hub.download_cached_file(url, check_hash, progress)", "pass"),
    (DOWNLOAD, "timm_hub.get_cache_dir()", "'{work}'"),
    (EVA, "embed_dim=1408", "embed_dim=64"),
    (EVA, "depth=39", "depth=1"),
    (EVA, "num_heads=1408//88", "num_heads=2"),
)
