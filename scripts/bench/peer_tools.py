"""Ways to ask a LLaVA checkpoint questions: a plain script's, lmms-eval's, and this project's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from transformers import AutoProcessor, LlavaConfig, LlavaForConditionalGeneration

import models
from eval.files.answers import BASELINE, Answer, Item
from eval.run.arm_settings import EAH
from eval.run.arms import Arm
from eval.run.plan import AskedArm, Plan, Prompt, batches_by_count
from eval.run.processes import Process
from eval.run.runner import Recorder, ask_batches
from eval.run.session import GPU_WORKERS
from models import Decoding
from models.settings import ROOT
from scripts.bench.vlm import eah_config, reduced_config
from scripts.scenes.processor_files import write_processor_files

# LLaVA-1.5's prompt, of a message that is a text, as lmms-eval has it, or a list of parts.
TEMPLATE: Final = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
    "{% for message in messages %}USER: {% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
SEED: Final = 2014
SPREAD: Final = 1.6  # times one over the root of the width
BATCH: Final = 8  # the commands' default


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of which checkpoint.

    Attributes:
        checkpoint: Folder in transformers' format.
        pictures: Folder of the pictures.
        questions: A picture's file name and a question each.
        tokens: Tokens of an answer at most.
        device: Where.
    """

    checkpoint: Path
    pictures: Path
    questions: Sequence[tuple[str, str]]
    tokens: int
    device: torch.device

    @property
    def dtype(self) -> str:
        """The weights' dtype, as on every machine of this kind."""
        return "bfloat16" if self.device.type == "cuda" else "float32"

    def picture(self, name: str) -> Image.Image:
        """Read a picture."""
        with Image.open(self.pictures / name) as image:
            return image.convert("RGB")


Ask = Callable[[int], list[str]]
"""Answers so many of the questions, from the first on."""


def make_checkpoint(folder: Path, *, tiny: bool = False) -> None:
    """Write a LLaVA with random weights, laid out as on the hub, with tiny-llava's vocabulary.

    Args:
        folder: An empty folder.
        tiny: Whether to take toy sizes.
    """
    source = ROOT / "models/tiny-llava"
    known = LlavaConfig.from_pretrained(source)
    config = reduced_config(tiny=tiny)
    config.image_token_index = known.image_token_index
    config.text_config.vocab_size = known.text_config.vocab_size
    config.text_config.pad_token_id = known.text_config.pad_token_id
    # Wide enough that answers depend on pictures and questions.
    for part in (config, config.text_config, config.vision_config):
        part.initializer_range = SPREAD * config.text_config.hidden_size**-0.5
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        LlavaForConditionalGeneration(config).save_pretrained(folder)
    shutil.copy(source / "tokenizer.model", folder)
    write_processor_files(folder, config)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def plain_script(asked: Asked) -> Ask:
    """Ask one question after the other, as the model's card shows it."""
    processor = AutoProcessor.from_pretrained(asked.checkpoint)
    dtype = getattr(torch, asked.dtype)
    model = LlavaForConditionalGeneration.from_pretrained(asked.checkpoint, dtype=dtype)
    model = model.to(asked.device).eval()

    def answer(name: str, question: str) -> str:
        parts = [{"type": "image"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": parts}]
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(images=asked.picture(name), text=prompt, return_tensors="pt")
        inputs = inputs.to(asked.device, dtype)
        output = model.generate(**inputs, max_new_tokens=asked.tokens, do_sample=False)
        new = output[:, inputs["input_ids"].shape[1] :]
        return str(processor.batch_decode(new, skip_special_tokens=True)[0])

    return lambda count: [answer(*question) for question in asked.questions[:count]]


def lmms_eval(asked: Asked) -> Ask:
    """Ask as lmms-eval's `llava_hf` does, which takes one question at a time.

    Raises:
        ImportError: If lmms-eval is not installed, or something that it needs.
    """
    from lmms_eval.api.instance import Instance
    from lmms_eval.models.simple.llava_hf import LlavaHf

    device = str(asked.device)
    model = LlavaHf(str(asked.checkpoint), device=device, dtype=asked.dtype, device_map=device)
    model.task_dict["pope"] = {"test": dict(enumerate(asked.questions))}

    def request(number: int) -> Any:
        settings = {"max_new_tokens": asked.tokens, "temperature": 0, "num_beams": 1}
        given = (asked.questions[number][1], settings, visuals, number, "pope", "test")
        metadata = {"task": "pope", "doc_id": number, "repeats": 1}
        return Instance("generate_until", given, number, metadata)

    def visuals(document: tuple[str, str]) -> list[Image.Image]:
        return [asked.picture(document[0])]

    return lambda count: list(model.generate_until([*map(request, range(count))]))


def ours(asked: Asked, *, eah: bool = False) -> Ask:
    """Ask as `eval/pope_eval.py --model hf` does.

    Args:
        asked: What is asked.
        eah: Whether under EAH.
    """
    device = str(asked.device)
    vlm = models.load("hf", checkpoint=str(asked.checkpoint), device=device, dtype=asked.dtype)
    prompts = [
        Prompt(Item(number, name, question), question)
        for number, (name, question) in enumerate(asked.questions)
    ]
    arm = Arm(EAH, eah=eah_config("llava-1.5")) if eah else Arm(BASELINE)
    plan = Plan(
        prompts,
        [AskedArm(arm, None)],
        asked.pictures,
        Decoding(max_new_tokens=asked.tokens),
        batch_size=BATCH,
        num_workers=GPU_WORKERS if asked.device.type == "cuda" else 0,
        seed=0,
    )

    def ask(count: int) -> list[str]:
        answered: list[Answer] = []
        recorder = Recorder(lambda _, answers: answered.extend(answers), lambda *_: None)
        asked = replace(plan, prompts=prompts[:count])
        batches = batches_by_count(asked.prompts, BATCH)
        ask_batches(vlm, asked, batches, {arm.name: []}, recorder, Process())
        return [one.text for one in sorted(answered, key=lambda one: int(one.item.id))]

    return ask
