"""Kinds of code that a swap of modeling_llama.py can't reach, with what to do about each."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """Heading and advice of a block of findings, in the order of the report."""

    COPY = (
        "Llama attention of the folder's own, which a swap of transformers does not touch",
        "Swap a whole modeling file with `python -m eah.swap install --file PATH`. A file without "
        "a model class can't be swapped: use the attention of transformers instead.",
    )
    VENDORED = (
        "a transformers of the folder's own",
        "It counts where the environment imports it; swap it with `python -m eah.swap install "
        "--file PATH`. If another transformers is imported, ignore it.",
    )
    ATTENTION = (
        "attention replaced in layers of a model",
        "EAH can't act in a target layer among these layers: its file raises an error there, at "
        "the latest at the first image prompt. Set EAH_LAYERS to other layers, or don't run this "
        "code, or use the library (`eah.enable`) with a transformers that it supports.",
    )
    MODEL = (
        "forward of LlamaModel replaced",
        "EAH's file reads each prompt in LlamaModel.forward, so these models run without EAH. Call "
        "super().forward() there, or use the library (`eah.enable`) with a transformers that it "
        "supports.",
    )
    FLASH = (
        "an attention kernel requested that hides its map",
        "EAH's file raises an error in a target layer that uses flash, flex or paged attention. "
        "Request attn_implementation='eager' or 'sdpa'.",
    )
    SWAPPABLE = (
        "decoders that are not Llama, and have their own swap",
        "The file of Llama does not touch them; swap theirs too, with `python -m eah.swap install "
        "--model FAMILY` and the family named above.",
    )
    OTHER = (
        "decoders that are not Llama, and have no swap",
        "They run without EAH. `python -m eah check MODEL_FOLDER` says whether the library "
        "(`eah.enable`) supports the model.",
    )

    @property
    def heading(self) -> str:
        """What the findings have in common."""
        return self.value[0]

    @property
    def advice(self) -> str:
        """What to do about them."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of code that a swap can't reach.

    Attributes:
        kind: What is wrong with it.
        line: Line of the source, from 1.
        what: The code in short.
        is_module: Whether it matters only to code that imports its file.
    """

    kind: Kind
    line: int
    what: str
    is_module: bool = False
