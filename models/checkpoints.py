"""Tell what a checkpoint is by what it holds, and name every part that a model needs.

A checkpoint is one folder in transformers' format, or the original files of the papers: language
model, vision tower, Q-Former and projector, each a part that lies where its authors put it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.errors import ModelError
from models.layouts import LAYOUTS, WHOLE
from models.sources import Source, find_source
from models.tensors import TensorFiles, tensor_files
from models.tokenizer import ChunkTokenizer, JsonTokenizer, SentencePieceTokenizer

LAVIS: Final = "storage.googleapis.com/sfr-vision-language-research/LAVIS/models"
# Where the paper's README gets the files that no hub repository has.
ORIGINS: Final = {
    ("instructblip", "vision"): f"eva_vit_g.pth, https://{LAVIS}/BLIP2/eva_vit_g.pth",
    ("minigpt4", "vision"): f"eva_vit_g.pth, https://{LAVIS}/BLIP2/eva_vit_g.pth",
    ("instructblip", "qformer"): "instruct_blip_vicuna7b_trimmed.pth, "
    f"https://{LAVIS}/InstructBLIP/instruct_blip_vicuna7b_trimmed.pth",
    ("minigpt4", "qformer"): "blip2_pretrained_flant5xxl.pth, "
    f"https://{LAVIS}/BLIP2/blip2_pretrained_flant5xxl.pth",
    ("minigpt4", "projector"): "pretrained_minigpt4_7b.pth, linked from MiniGPT-4's README",
    ("instructblip", "llm"): "Vicuna-7B v1.1 in transformers' format, such as lmsys/vicuna-7b-v1.1",
    ("minigpt4", "llm"): "Vicuna-7B v0 in transformers' format, such as Vision-CAIR/vicuna-7b",
    ("shikra", "llm"): "shikras/shikra-7b-delta-v1 added to LLaMA-7B by Shikra's apply_delta.py",
    ("llava-1.5", "llm"): "liuhaotian/llava-v1.5-7b",
    ("llava-1.5", "vision"): "openai/clip-vit-large-patch14-336",
    ("shikra", "vision"): "openai/clip-vit-large-patch14",
    ("instructblip", "qformer_tokenizer"): "the vocab.txt of bert-base-uncased",
}


@dataclass(frozen=True, slots=True)
class Family:
    """What tells checkpoints of a model from others.

    Attributes:
        name: Key of `LAYOUTS`.
        model_type: In the `config.json` of a folder in transformers' format.
        llm_types: In the `config.json` of the original language model.
    """

    name: str
    model_type: str
    llm_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose parts all exist; the only part is `WHOLE` in transformers' format."""

    family: Family
    parts: Mapping[str, Source]

    @property
    def is_whole(self) -> bool:
        """Whether it is one folder in transformers' format."""
        return WHOLE in self.parts

    @property
    def name(self) -> str:
        """Path or hub id, for each part where there are several."""
        if self.is_whole:
            return self.parts[WHOLE].name
        return " ".join(f"{part}={source.name}" for part, source in self.parts.items())

    @property
    def identity(self) -> str:
        """Hub commit or hash of each part; another one means other weights."""
        return " ".join(source.identity for source in self.parts.values())

    @property
    def text(self) -> Source:
        """Where the language model's config and tokenizer are."""
        return self.parts[WHOLE if self.is_whole else "llm"]

    @property
    def weights(self) -> dict[str, Source]:
        """Parts that hold weights."""
        return {part: at for part, at in self.parts.items() if part != "qformer_tokenizer"}


def locate(
    family: Family, checkpoint: str | None, chosen: Mapping[str, str], config: Mapping[str, str]
) -> Checkpoint:
    """Find a checkpoint or its parts.

    Args:
        family: The model.
        checkpoint: A folder or hub id: all of it, or some of its parts; None for parts alone.
        chosen: Parts that the user named; they win.
        config: Parts that `configs/<model>.yaml` names.
    Raises:
        ModelError: If something is missing, or is of another model.
    """
    found: dict[str, Source] = {}
    if checkpoint is not None:
        found = _recognised(
            family, find_source(checkpoint, what="checkpoint", advice="name one of the three")
        )
    if WHOLE in found:
        if chosen:
            raise ModelError(
                f"checkpoint {checkpoint} is a whole model; leave out "
                f"{', '.join(map(_flag, chosen))}"
            )
        return Checkpoint(family, found)
    needed = list(LAYOUTS[family.name][1])
    if (family.name, "qformer_tokenizer") in ORIGINS:
        needed.append("qformer_tokenizer")
    for part in chosen:
        if part not in needed:
            raise ModelError(
                f"{family.name} has no part {part!r} of its own; its parts are {', '.join(needed)}"
            )
    names = {**config, **{part: source.name for part, source in found.items()}, **chosen}
    for part in needed:
        if part not in names:
            raise ModelError(
                f"{family.name} needs its {part} part, {ORIGINS[family.name, part]}; "
                f"pass it with {_flag(part)}"
            )
    parts = {part: _part(family, part, names[part]) for part in needed}
    _require_llm(family, parts["llm"])
    return Checkpoint(family, parts)


def load_tokenizer(source: Source) -> ChunkTokenizer:
    """Load `tokenizer.model`, or `tokenizer.json` where there is no such file.

    Raises:
        ModelError: If the checkpoint has neither.
    """
    model = source.file("tokenizer.model")
    if model is not None:
        return SentencePieceTokenizer(model)
    fast = source.file("tokenizer.json")
    if fast is not None:
        return JsonTokenizer(fast)
    raise ModelError(
        f"checkpoint {source.name} has no tokenizer.model and no tokenizer.json; "
        "copy one of them from the original checkpoint into it"
    )


def _flag(part: str) -> str:
    return "--" + part.replace("_", "-")


def _part(family: Family, part: str, name: str) -> Source:
    advice = f"get {ORIGINS[family.name, part]}, and pass it with {_flag(part)}"
    return find_source(name, what=f"{part} of {family.name}", advice=advice)


def _recognised(family: Family, source: Source) -> dict[str, Source]:
    """Return the parts of a checkpoint that a file, folder or repository holds."""
    if not source.config:
        return _bag_of_parts(source)
    found = source.config.get("model_type")
    if found == family.model_type and "text_config" in source.config:
        return {WHOLE: source}
    if found in family.llm_types and "text_config" not in source.config:
        return {"llm": source}
    raise ModelError(
        f"checkpoint {source.name} has model_type {found!r} in its config.json, "
        f"but this model needs {family.model_type!r}; pass another --checkpoint or --model"
    )


def _bag_of_parts(source: Source) -> dict[str, Source]:
    """Return the parts that lie as files and folders in a folder, told by their tensors' names."""
    path = source.local()
    inside = [path] if path.is_file() else sorted(path.iterdir())
    found: dict[str, Source] = {}
    for entry in inside:
        part = None
        if entry.suffix in {".pth", ".bin", ".safetensors"} and entry.is_file():
            part = _part_of(set(TensorFiles((entry,)).shapes()))
        elif (entry / "config.json").is_file():
            part = "llm" if "num_hidden_layers" in _config_of(entry) else "vision"
        elif (entry / "vocab.txt").is_file() or entry.name == "vocab.txt":
            part = "qformer_tokenizer"
        if part in found:
            raise ModelError(
                f"checkpoint {source.name} holds two {part} parts, {found[part].name} and {entry}; "
                "name the right one by its flag"
            )
        if part is not None:
            found[part] = find_source(str(entry), what=part, advice="check the path")
    if not found:
        raise ModelError(
            f"checkpoint {source.name} has no config.json and none of a model's original files; "
            "pass the folder that `save_pretrained` wrote or a hub download made"
        )
    return found


def _part_of(names: set[str]) -> str | None:
    """Return which part a file of the BLIP family is."""
    if "query_tokens" in names:
        return "qformer"
    if "llama_proj.weight" in names:
        return "projector"
    return "vision" if "blocks.0.attn.qkv.weight" in names else None


def _config_of(folder: Path) -> dict[str, Any]:
    return find_source(str(folder), what="folder", advice="check the path").config


def _require_llm(family: Family, source: Source) -> None:
    found = source.config.get("model_type")
    if found not in family.llm_types:
        raise ModelError(
            f"llm of {family.name}: {source.name} has model_type {found!r} in its config.json, but "
            f"{' or '.join(map(repr, family.llm_types))} is needed: "
            f"{ORIGINS[family.name, 'llm']}"
        )
    if not source.config.get("hidden_size"):
        raise ModelError(f"{source.name}/config.json has no hidden_size; download it again")


def weight_files(source: Source) -> TensorFiles:
    """Return the tensor files of a part, downloaded if need be."""
    return tensor_files(source.local())
