"""What a checkpoint folder is made of, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import transformers
from packaging.version import Version
from tokenizers import Tokenizer
from transformers import GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from tests.eah.families import FAMILIES as CASES
from tests.eah.families.case import Recipe, random_model
from tests.models.hf.templates import Template

Files = Mapping[str, Any]
RECIPES: Mapping[str, Recipe] = {
    case.name: case.build for case in CASES if isinstance(case.build, Recipe)
}
# Where transformers 5 differs from 4.57.
FIVE = Version(transformers.__version__) >= Version("5.0")
# 4.57 and 5.0 have a class without torchvision for every family, and "fast" ones beside them.
PILLOW_FIRST = find_spec("transformers.models.clip.image_processing_pil_clip") is None
FLAGS = dict.fromkeys(["lstrip", "rstrip", "single_word", "normalized"], False)


@dataclass(frozen=True)
class Words:
    """A family's tokenizer.

    Attributes:
        make: Returns the tokenizer, from the special tokens.
        special: Special tokens, by the family's own names.
        roles: Which of them are `bos_token`, `eos_token` and so on.
        named: Further names of special tokens, such as `image_token`.
        kind: The tokenizer's class.
        more: Further settings of `tokenizer_config.json`.
    """

    make: Callable[[Sequence[str]], Tokenizer]
    special: tuple[str, ...]
    roles: Mapping[str, str]
    named: Mapping[str, str] = field(default_factory=dict)
    kind: str = "PreTrainedTokenizerFast"
    more: Files = field(default_factory=dict)

    def write(self, folder: Path, processor: str) -> Tokenizer:
        """Write `tokenizer.json` and `tokenizer_config.json`; return the tokenizer."""
        tokenizer = self.make(self.special)
        tokenizer.save(str(folder / "tokenizer.json"))
        added = {
            str(tokenizer.token_to_id(token)): {"content": token, **FLAGS, "special": True}
            for token in self.special
        }
        _write(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": self.kind,
                "processor_class": processor,
                "added_tokens_decoder": added,
                "additional_special_tokens": sorted(set(self.named.values())),
                "clean_up_tokenization_spaces": False,
                "model_max_length": 4096,
                "model_input_names": ["input_ids", "attention_mask"],
                "padding_side": "left",
                **({"extra_special_tokens": dict(self.named)} if self.named else {}),
                **self.roles,
                **self.more,
            },
        )
        return tokenizer


@dataclass(frozen=True)
class Checkpoint:
    """A tiny random checkpoint with its processor.

    Attributes:
        name: Its name in the tests.
        case: The case of `tests/eah/families` whose tiny config it has.
        words: The tokenizer.
        processor: `processor_config.json`.
        image: `preprocessor_config.json`.
        template: The chat template; None if prompts hold the image token.
        ids: Settings of the config that are token ids: a token each, or some.
        video: `video_preprocessor_config.json`; None without.
        tokenizers: Further tokenizers, by their folder's name.
        text: Further settings of the language model.
        vision: Further settings of the vision tower.
        settings: Further settings of the whole model.
        prefix: What stands for a picture in a prompt without a chat template.
        placeholder: The token that pictures are embedded as.
        film: The token that videos are embedded as, if another one.
        shown: Largest number of pictures in a prompt.
        needs: Packages that AutoProcessor needs beside Pillow.
        images_need: Those among them that the processor needs without its video part, too.
        varies: Why a batch of its processor answers differently from single prompts; "" if not.
        positions: "1-D" or "M-RoPE".
        attention: What image tokens see: "causal", "their picture" or "the whole prompt".
        window: Whether some layers see the nearest tokens only.
        std: Standard deviation of the weights.
    """

    name: str
    case: str
    words: Words
    processor: Files
    image: Files
    template: Template | None
    ids: Mapping[str, str | tuple[str, ...]]
    placeholder: str
    video: Files | None = None
    tokenizers: Mapping[str, Words] = field(default_factory=dict)
    text: Files = field(default_factory=dict)
    vision: Files = field(default_factory=dict)
    settings: Files = field(default_factory=dict)
    prefix: str = ""
    film: str | None = None
    shown: int = 2
    needs: tuple[str, ...] = ()
    images_need: tuple[str, ...] = ()
    varies: str = ""
    positions: str = "1-D"
    attention: str = "causal"
    window: bool = False
    std: float = 0.5

    def known(self) -> bool:
        """Tell whether this transformers has the family among its image-text models."""
        names = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        return RECIPES[self.case].model_type in names

    def write(self, folder: Path) -> None:
        """Write the folder that `from_pretrained` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        processor = self.processor["processor_class"]
        tokenizer = self.words.write(folder, processor)
        for name, words in self.tokenizers.items():
            (folder / name).mkdir(exist_ok=True)
            words.write(folder / name, processor)
        self._write_model(folder, tokenizer)
        _write(folder / "processor_config.json", self.processor)
        _write(folder / "preprocessor_config.json", {"processor_class": processor, **self.image})
        if self.video is not None:
            video = {"processor_class": processor, **self.video}
            _write(folder / "video_preprocessor_config.json", video)
        if self.template is not None:
            (folder / "chat_template.jinja").write_text(self.template.jinja(), encoding="utf-8")

    def _write_model(self, folder: Path, tokenizer: Tokenizer) -> None:
        def ids(tokens: str | tuple[str, ...]) -> int | list[int]:
            if isinstance(tokens, tuple):
                return [tokenizer.token_to_id(token) for token in tokens]
            return int(tokenizer.token_to_id(tokens))

        roles = self.words.roles
        special = {
            f"{role}_token_id": ids(roles[f"{role}_token"]) if f"{role}_token" in roles else None
            for role in ("bos", "eos", "pad")
        }
        vocabulary = {"vocab_size": tokenizer.get_vocab_size()}
        recipe = RECIPES[self.case]
        config = recipe.config(
            text={**vocabulary, **special, **_rope(recipe), **self.text},
            vision=self.vision,
            **{name: ids(tokens) for name, tokens in self.ids.items()},
            **self.settings,
            **(vocabulary if "vocab_size" in recipe.settings else {}),
        )
        model = random_model(config, "sdpa", std=self.std)
        model.generation_config = GenerationConfig(**special)
        model.save_pretrained(folder)


def _rope(recipe: Recipe) -> Files:
    """Return the settings of rotary positions by the names of transformers 4."""
    rope = dict((recipe.text or {}).get("rope_parameters", {}))
    if not rope or FIVE:
        return {}
    return {
        "rope_theta": rope.pop("rope_theta"),
        "partial_rotary_factor": rope.pop("partial_rotary_factor", 1.0),
        "rope_scaling": rope,
    }


def _write(path: Path, content: Files) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
