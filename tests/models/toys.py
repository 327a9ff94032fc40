"""Small random models of all four families, as folders in transformers' format."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    CLIPVisionConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from models.llava import ShikraConfig, ShikraForConditionalGeneration

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "models/tiny-llava/tokenizer.model"
PIECES = 640
FAMILIES = ("llava-1.5", "instructblip", "minigpt4", "shikra")
IMAGE_TOKENS = {"llava-1.5": 4, "instructblip": 5, "minigpt4": 5, "shikra": 4}
VOCABULARY = {"llava-1.5": 640, "instructblip": 640, "minigpt4": 641, "shikra": 643}
BERT_WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "is", "there", "a", "an", "the", "in", "image"),
    *("cat", "dog", "bird", "what", "where", "color", "sky", "describe", "this", "detail"),
    *("please", "?", ".", ","),
]
QUESTIONS = [
    "Is there a cat in the image?",
    "Please describe this image in detail.",
    "What color is the sky, and where is the bird in the image?",
    "Is there an apple?",
    "?",
    "Is there a dog in the image, or a cat, or a bird, or a traffic light, or a stop sign?",
]


def pictures(count: int = len(QUESTIONS)) -> list[Image.Image]:
    """Return pictures of noise, each different and none of them square."""
    made = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randint(0, 256, (5, 7, 3), generator=generator, dtype=torch.uint8)
        made.append(Image.fromarray(coarse.numpy(), "RGB").resize((70, 50)))
    return made


def make_model(family: str) -> Any:
    """Return a random model of a family; weights large enough that inputs matter."""
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=VOCABULARY[family],
        hidden_size=64,  # bitsandbytes counts in blocks of 64
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
    ).to_dict()
    tower = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
    tower |= {"intermediate_size": 40, "image_size": 28, "patch_size": 14}
    model: Any
    if family in ("llava-1.5", "shikra"):
        config_class, model_class = {
            "llava-1.5": (LlavaConfig, LlavaForConditionalGeneration),
            "shikra": (ShikraConfig, ShikraForConditionalGeneration),
        }[family]
        vision = CLIPVisionConfig(**tower).to_dict()
        model = model_class(config_class(vision_config=vision, text_config=text))
    else:
        qformer = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
        qformer |= {"intermediate_size": 48, "encoder_hidden_size": 24, "vocab_size": 60}
        config_class, model_class = {
            "instructblip": (InstructBlipConfig, InstructBlipForConditionalGeneration),
            "minigpt4": (Blip2Config, Blip2ForConditionalGeneration),
        }[family]
        config = config_class(
            vision_config=tower, qformer_config=qformer, text_config=text, num_query_tokens=5
        )
        model = model_class(config)
    for name, parameter in model.named_parameters():
        scale = 0.05 if parameter.dim() == 1 else 0.3
        offset = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        torch.nn.init.normal_(parameter, offset, scale)
    return model.eval()


def make_folder(family: str, folder: Path) -> Path:
    """Save a random model with its tokenizers, as `save_pretrained` writes it."""
    make_model(family).save_pretrained(folder)
    shutil.copyfile(TOKENIZER, folder / "tokenizer.model")
    if family == "instructblip":
        write_bert_vocabulary(folder / "qformer_tokenizer")
    return folder


def write_bert_vocabulary(folder: Path) -> Path:
    """Write the `vocab.txt` of a lower-cased tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghij"
    words = [*BERT_WORDS, *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder
