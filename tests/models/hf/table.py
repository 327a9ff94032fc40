"""The table of checkpoints on `docs/models.md`: how each family's prompts and positions work.

What `--model hf` can do with a family is measured with its tiny checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from PIL import Image

import models
from models.decoding.base import DecodingMethod, MethodError
from models.decoding.deco import Deco
from models.decoding.dola import Dola
from models.decoding.hgai import Hgai
from models.decoding.opera import Opera
from models.decoding.pai import Pai
from models.decoding.vcd import Vcd
from tests.models.hf import CHECKPOINTS, Checkpoint, build
from tests.models.hf.asking import missing

HEADER: Final = """## Whole folders

Families whose folders, with tokenizer, image processor and chat template, are tested with
`--model hf`: tiny ones that are made like a download, in `tests/models/hf`. Each answers a padded
batch as one by one, except where the table says otherwise, and EAH finds every image token of one
picture, two pictures and a video. [What is sent](#what-is-sent) shows a prompt.

transformers' video processors need torchvision, and `AutoProcessor` loads them with the rest. Where
the table says "for videos", pictures work without torchvision: the video processor is left out.
Where it says "needed", loading the model without torchvision is an error that names it.

OPERA and PAI work where prefixes can be cached. VCD needs pixels in the shape of pictures, and not
of patches. DoLa needs the hidden states of `generate`, which Q-Former models don't return; DeCo does
not. HGAI, VAF, AD-HH and SPIN work in layers that keep all tokens, as VAR does where the model's sink
dimensions are known ([decoding.md](decoding.md)).

| family | prompt | positions | image tokens see | cached prefixes | VCD | DoLa | DeCo | OPERA | PAI | HGAI | video | torchvision |
|---|---|---|---|---|---|---|---|---|---|---|---|---|"""  # noqa: E501  # a row of a table is one line
METHODS: Final = (Vcd(), Dola(), Deco((1,)), Opera(num_attn_candidates=2), Pai(), Hgai((0, 1)))
SHOWN: Final = Image.effect_noise((96, 72), 90).convert("RGB")


def measure(checkpoint: Checkpoint) -> list[str]:
    """Return whether prefixes are cached, or why not, and which decoding methods run."""
    with TemporaryDirectory() as folder:
        path = build(checkpoint.name, Path(folder) / checkpoint.name)
        vlm = models.load("hf", checkpoint=str(path), device="cpu")
    note = vlm.prefix_note
    cached = "yes" if note is None else f"no: {note.partition(' (')[0]}"
    *others, attends = ("yes" if runs(vlm, method) else "no" for method in METHODS)
    # A window drops tokens only once a prompt is longer, which this short one need not be.
    return [cached, *others, "in layers without a window" if checkpoint.window else attends]


def runs(vlm: models.VLM, method: DecodingMethod) -> bool:
    """Tell whether a model answers by a decoding method; False where the method is refused."""
    decoding = models.Decoding(2, num_beams=2 if isinstance(method, Opera) else 1)
    try:
        vlm.check_method(method)
        prepared = vlm.preprocess([SHOWN])
        noised = None
        if isinstance(method, Vcd):
            noised = vlm.encode([vlm.add_noise(one, method, 0) for one in prepared])
        vlm.answer_batch(vlm.encode(prepared), ["Is it?"], decoding, method, noised)
    except MethodError:
        return False
    return True


def needs_torchvision(checkpoint: Checkpoint) -> str:
    """Return what a processor needs torchvision for."""
    for packages, answer in (
        (checkpoint.images_need, "needed"),
        (checkpoint.needs, "for videos"),
    ):
        if "torchvision" in packages:
            others = [f", and {package}" for package in packages if package != "torchvision"]
            return "".join([answer, *others])
    return "not needed"


def row(checkpoint: Checkpoint) -> str:
    """Return a checkpoint's line."""
    if checkpoint.template is not None:
        prompt = "chat template"
    elif checkpoint.prefix:
        prompt = f"`{checkpoint.prefix}`, then the text"
    else:
        prompt = "text; the processor adds the picture"
    if checkpoint.varies:
        prompt += f"; batches differ: {checkpoint.varies}"
    sees = checkpoint.attention + (", windows in some layers" if checkpoint.window else "")
    cells = (
        checkpoint.name,
        prompt,
        checkpoint.positions,
        sees,
        *measure(checkpoint),
        "no" if checkpoint.video is None else "yes",
        needs_torchvision(checkpoint),
    )
    return f"| {' | '.join(cells)} |"


def lines(page: str) -> list[str]:
    """Return the section's lines.

    Args:
        page: The page as it is. Families whose packages are not installed keep their lines.
    """
    current = {line.split(" | ")[0].removeprefix("| "): line for line in sections(page)}
    made = []
    for name in sorted(CHECKPOINTS):
        checkpoint = CHECKPOINTS[name]
        if absent := missing(checkpoint.images_need):
            line = current.get(name, f"| {name} | not measured: needs {', '.join(absent)} |")
        else:
            line = row(checkpoint)
        made.append(line)
    return [HEADER, *made]


def sections(page: str) -> list[str]:
    """Return the lines of this section on the page."""
    return page.partition("## Whole folders\n")[2].partition("\n## ")[0].splitlines()
