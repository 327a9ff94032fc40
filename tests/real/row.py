"""What is known of a script of a repository: how it is run, and what must be changed for it.

Edits put paths of this machine in the place of the authors' own, where their code offers no other
way, and make parts tiny that no checkpoint decides. A text before the edit is as short as finds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

# Imported by the scripts, and irrelevant to what they compute; see stubs.py.
STUBS: Final = (
    *("IPython", "contexttimer", "cv2", "datasets", "decord", "diffusers", "easydict"),
    *("fairscale", "ftfy", "h5py", "iopath", "kornia", "matplotlib", "mmengine", "moviepy"),
    *("nltk", "open3d", "opendatasets", "pandas", "peft", "plotly", "pycocoevalcap"),
    *("pycocotools", "scipy", "skimage", "soundfile", "spacy", "timm", "torchaudio"),
    *("torchvision", "visual_genome", "wandb", "webdataset"),
)


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
        found: What `python -m eah.swap check` names in the checkout, beside others.
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
    found: str | None = None
    after: tuple[str, ...] = ()


# On a GPU these models compute under autocast; on a CPU they would mix dtypes.
AUTOCAST: Final = ("contextlib.nullcontext()", "torch.autocast('cpu', dtype=dtype)")


def query_edits(package: str, file_with_bert: str, bert: str) -> tuple[tuple[str, str, str], ...]:
    """Return edits for MiniGPT-4's and InstructBLIP's vision: tiny, and read from {work}.

    Args:
        package: Folder of the package with `common` and `models`.
        file_with_bert: The file that loads BERT.
        bert: BERT's name there.
    """
    eva, download = f"{package}/models/eva_vit.py", f"{package}/common/dist_utils.py"
    return (
        (download, "timm_hub.download_cached_file(url, check_hash, progress)", "pass"),
        (download, "timm_hub.get_cache_dir()", "'{work}'"),
        (eva, "embed_dim=1408", "embed_dim=64"),
        (eva, "depth=39", "depth=1"),
        (eva, "num_heads=1408//88", "num_heads=2"),
        (file_with_bert, bert, "{work}/bert"),
    )
