"""Train tiny-llava, the embedded demonstration model, on rendered scenes (CPU, under 45 minutes).

    python scripts/scenes/train_tiny.py --output models/tiny-llava

A real LLaVA: CLIP tower, two-layer projector, Llama decoder, saved as a Hugging Face checkpoint
with its own sentencepiece tokenizer. It shows that the software works; it says nothing about
the paper's claim.

As in LLaVA, features are aligned before the whole is trained: a patch learns to become the
embedding of the name of what covers it. Then everything is trained together, on packed prompts
(`packing.py`).
"""

from __future__ import annotations

import json
import math
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import sentencepiece
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from eval.command import finish
from eval.errors import EvaluationError
from eval.files.writing import write_errors
from eval.run.flag_parser import FlagParser
from models.llava import Llava
from models.prompts import TEMPLATES
from models.tokenizer import LLAMA_BOS, LLAMA_EOS, LLAMA_PAD, SentencePieceTokenizer
from scripts.scenes.make import scene_of
from scripts.scenes.packing import IGNORE, Packer, segments
from scripts.scenes.processor_files import write_processor_files
from scripts.scenes.samples import TRAIN_SEED, Sample, load_samples
from scripts.scenes.scene import CATEGORIES
from scripts.scenes.text import QUESTION_DESCRIBE, answer, captions, describe, question

RECIPE: Final = "training.json"
INITIALIZER_RANGE = 0.06  # 0.02 is made for width 4096; at width 128 yes/no stays at chance
EMBEDDING_STD = 0.5
DECISIVE_WEIGHT = 5.0
PROBED_LAYERS = 2  # the probe reads what this many decoder layers give


def corpus() -> list[str]:
    """Return every kind of sentence that prompts and answers are made of."""
    lines = []
    for (family, _), pieces in TEMPLATES.items():
        if family == Llava.family.name:
            texts = [piece for piece in pieces if isinstance(piece, str)]
            lines += [text.replace("{question}", QUESTION_DESCRIBE) for text in texts] * 40
    for category in CATEGORIES:
        for present in (True, False):
            lines += [question(category.name), answer(category.name, present=present)] * 20
    for index in range(2000):
        scene, rng = scene_of(TRAIN_SEED, index)
        lines += [describe(scene), *captions(scene, rng)]
    return lines


def train_tokenizer(output: Path) -> SentencePieceTokenizer:
    """Train a LLaMA-like sentencepiece model (BPE, byte fallback) and write it."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "corpus.txt")
        text.write_text("\n".join(corpus()))
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(Path(folder, "tokenizer")), model_type="bpe",
            vocab_size=640, hard_vocab_limit=False, byte_fallback=True, character_coverage=1.0,
            unk_id=0, bos_id=LLAMA_BOS, eos_id=LLAMA_EOS, pad_id=-1, split_digits=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False,
            minloglevel=2,
        )  # fmt: skip
        (output / "tokenizer.model").write_bytes(Path(folder, "tokenizer.model").read_bytes())
    return SentencePieceTokenizer(output / "tokenizer.model")


def build_model(pieces: int) -> LlavaForConditionalGeneration:
    """Build the untrained model: 64 image tokens, 4 decoder layers of 8 heads, 1.4 M parameters."""
    vision = CLIPVisionConfig(
        hidden_size=96, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        image_size=96, patch_size=12, projection_dim=96, initializer_range=INITIALIZER_RANGE,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=pieces + 2, hidden_size=128, intermediate_size=344, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=1024,
        rms_norm_eps=1e-5, tie_word_embeddings=False, initializer_range=INITIALIZER_RANGE,
        bos_token_id=LLAMA_BOS, eos_token_id=LLAMA_EOS, pad_token_id=LLAMA_PAD,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=pieces, image_seq_length=64,
        projector_hidden_act="gelu", vision_feature_layer=-2, tie_word_embeddings=False,
        vision_feature_select_strategy="default", initializer_range=INITIALIZER_RANGE,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        # A word must not drown in what attention adds to it: large embeddings, small outputs.
        model.get_input_embeddings().weight.normal_(std=EMBEDDING_STD)
        for layer in model.model.language_model.layers:
            for output in (layer.self_attn.o_proj, layer.mlp.down_proj):
                output.weight /= math.sqrt(2 * text.num_hidden_layers)
        # The first layers begin by attending to what is like themselves: a name to its patches.
        for layer in model.model.language_model.layers[:2]:
            layer.self_attn.q_proj.weight *= 2
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    model.generation_config = GenerationConfig(
        bos_token_id=LLAMA_BOS, eos_token_id=LLAMA_EOS, pad_token_id=LLAMA_PAD
    )
    return model


def patches_of(vlm: Llava, batch: list[Sample]) -> torch.Tensor:
    """Return the tower's patches as LLaVA takes them, shape (B, I, C)."""
    pixels = torch.stack([sample.pixels for sample in batch]).float()
    states = vlm.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    patches: torch.Tensor = states[vlm.model.config.vision_feature_layer][:, 1:]
    return patches


def align(vlm: Llava, samples: list[Sample], *, steps: int, batch: int, seed: int) -> None:
    """Train tower and projector until a patch becomes the embedding of its category's name."""
    rng = random.Random(seed)
    embedding = vlm.model.get_input_embeddings()
    projector = vlm.model.model.multi_modal_projector
    size = embedding.embedding_dim
    with torch.no_grad():
        names = [embedding(torch.tensor(vlm.tokenizer.encode(c.name))).mean(0) for c in CATEGORIES]
    words = nn.functional.normalize(torch.stack(names), dim=-1) * EMBEDDING_STD * size**0.5
    nothing = torch.randn(size) * EMBEDDING_STD  # what a patch without an object becomes

    def loss(step_samples: list[Sample]) -> torch.Tensor:
        covered = torch.stack([sample.covered for sample in step_samples]).float()
        count = covered.sum(-1, keepdim=True)  # (B, I, 1)
        target = torch.where(count > 0, covered @ words / count.clamp(min=1), nothing)
        features = projector(patches_of(vlm, step_samples))
        return nn.functional.mse_loss(features, target) / EMBEDDING_STD**2

    parameters = [*vlm.model.model.vision_tower.parameters(), *projector.parameters()]
    descend(parameters, loss, samples, steps=steps, batch=batch, rng=rng, rate=2e-3, name="align")


def loss_of(
    vlm: Llava, packer: Packer, probe: nn.Linear, batch: list[Sample], rng: random.Random
) -> torch.Tensor:
    """Run one packed forward pass and return the loss of answers and probe.

    The probe reads, in the middle of the decoder, at the name that a question asks about, whether
    the picture holds it. It shows the first layers what to look for, and is thrown away.
    """
    model = vlm.model
    packed = packer.pack([segments(sample, rng) for sample in batch])
    features = model.model.multi_modal_projector(patches_of(vlm, batch))
    embedding = model.get_input_embeddings()
    before = embedding(torch.tensor(packer.before)).expand(len(batch), -1, -1)
    output = model.model.language_model(
        inputs_embeds=torch.cat([before, features, embedding(packed.ids)], dim=1),
        attention_mask=packed.mask,
        position_ids=packed.positions,
        use_cache=False,
        output_hidden_states=True,
    )
    states = output.last_hidden_state[:, packer.prefix - 1 : -1]  # position before each label
    chosen = packed.labels != IGNORE
    labels = packed.labels[chosen]
    losses = nn.functional.cross_entropy(model.lm_head(states[chosen]), labels, reduction="none")
    # The first word decides a yes/no answer; without weight it drowns in the words that follow.
    weights = torch.where(torch.isin(labels, packer.yes_no), DECISIVE_WEIGHT, 1.0)
    names = output.hidden_states[PROBED_LAYERS][packed.name_rows, packed.name_columns]
    guess = probe(names).squeeze(-1)
    found = nn.functional.binary_cross_entropy_with_logits(guess, packed.present.float())
    return (losses * weights).sum() / weights.sum() + found


def train(vlm: Llava, samples: list[Sample], *, steps: int, batch: int, seed: int) -> None:
    """Train the whole model on questions, answers and descriptions."""
    rng = random.Random(seed)
    packer = Packer(vlm)
    probe = nn.Linear(vlm.model.config.text_config.hidden_size, 1)

    def loss(step_samples: list[Sample]) -> torch.Tensor:
        return loss_of(vlm, packer, probe, step_samples, rng)

    parameters = [*vlm.model.parameters(), *probe.parameters()]
    descend(parameters, loss, samples, steps=steps, batch=batch, rng=rng, rate=2e-3, name="llava")


def descend(
    parameters: list[nn.Parameter],
    loss_of_batch: Callable[[list[Sample]], torch.Tensor],
    samples: list[Sample],
    *,
    steps: int,
    batch: int,
    rng: random.Random,
    rate: float,
    name: str,
) -> None:
    """Run AdamW with warm-up and cosine decay, and print the running loss."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)

    def factor(step: int) -> float:
        return min(1, (step + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    order: list[int] = []
    started, running = time.monotonic(), 0.0
    for step in range(steps):
        if len(order) < batch:
            order = rng.sample(range(len(samples)), len(samples))
        loss = loss_of_batch([samples[order.pop()] for _ in range(batch)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward unannotated
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0 or step + 1 == steps:
            elapsed = time.monotonic() - started
            print(f"{name} step {step} loss {running:.4f} {elapsed:.0f} s", flush=True)


def save(model: LlavaForConditionalGeneration, output: Path) -> None:
    """Write the checkpoint with the weights' names of the hub, which every transformers reads."""
    names = [
        (r"^model\.vision_tower\.(vision_model\.)?", "vision_tower.vision_model."),
        (r"^model\.language_model\.", "language_model.model."),
        (r"^model\.multi_modal_projector\.", "multi_modal_projector."),
        (r"^lm_head\.", "language_model.lm_head."),
    ]
    weights = {}
    for name, tensor in model.state_dict().items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        weights[name] = tensor.contiguous()
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(output)
    model.generation_config.save_pretrained(output)
    save_file(weights, output / "model.safetensors", metadata={"format": "pt"})
    write_processor_files(output, model.config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    flags = FlagParser(__doc__ or "")
    flags.flag(
        "--output",
        type=Path,
        default=Path("models/tiny-llava"),
        help="folder to write (default: models/tiny-llava)",
    )
    flags.flag("--overwrite", action="store_true", help="also write into a folder with other files")
    for name, value, text in (
        ("align-steps", 1200, "steps that align vision tower and projector"),
        ("steps", 1200, "steps of training after that"),
        ("batch", 16, "examples per step"),
        ("scenes", 12000, "scenes to render"),
        ("seed", 0, "seed of scenes and weights"),
    ):
        flags.flag(f"--{name}", type=int, default=value, help=f"{text} (default: {value})")
    return finish(
        "train_tiny",
        lambda: make(**flags.parse(arguments)),
        interrupted="no checkpoint was written",
    )


def make(output: Path, *, overwrite: bool = False, **recipe: int) -> None:
    """Train and save.

    Args:
        output: Folder to write.
        overwrite: Write among files that this command did not write.
        recipe: Numbers of steps, scenes and prompts at once, and the seed.
    Raises:
        EvaluationError: If a number is too small, or the folder can't be written.
    """
    for name in ("align_steps", "steps", "batch", "scenes"):
        if recipe[name] < 1:
            flag = f"--{name.replace('_', '-')}"
            raise EvaluationError(f"{flag} {recipe[name]}, but at least 1 is needed")
    with write_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        is_foreign = any(output.iterdir()) and not (output / RECIPE).is_file()
    if is_foreign and not overwrite:
        raise EvaluationError(
            f"--output {output} holds files that this command did not write; name another folder, "
            "or pass --overwrite to write into this one"
        )
    torch.manual_seed(recipe["seed"])
    tokenizer = train_tokenizer(output)
    pieces = sentencepiece.SentencePieceProcessor(
        model_file=str(output / "tokenizer.model")
    ).get_piece_size()
    vlm = Llava(build_model(pieces), tokenizer, protocol="opera")
    samples = load_samples(vlm, recipe["scenes"])
    vlm.model.train()
    align(vlm, samples, steps=recipe["align_steps"], batch=32, seed=recipe["seed"])
    train(vlm, samples, steps=recipe["steps"], batch=recipe["batch"], seed=recipe["seed"])
    save(vlm.model.eval(), output)
    (output / RECIPE).write_text(json.dumps(recipe, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
