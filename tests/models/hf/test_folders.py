"""What the tiny checkpoints are good for: transformers and EAH read them as they read real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import eah
from tests.models.hf import CHECKPOINTS
from tests.models.hf.asking import Inputs, Loaded, encode, encode_video, load_processor, missing
from tests.models.hf.scenes import Scenes

Load = Callable[[str], Loaded]
QUESTIONS = (
    "Is there a cat in the image?",
    "Is there a stop sign in the image? Please describe this image in detail.",
    "no",
)
NEW = 8
families = pytest.mark.parametrize("name", CHECKPOINTS)
videos = pytest.mark.parametrize("name", [n for n, c in CHECKPOINTS.items() if c.video is not None])


@pytest.fixture(scope="session")
def pictures(scenes: Scenes) -> list[Image.Image]:
    return scenes.pictures()


@families
def test_the_weights_load_strictly(name: str, folder_of: Callable[[str], Path]) -> None:
    _, info = AutoModelForImageTextToText.from_pretrained(folder_of(name), output_loading_info=True)
    assert not any(info.values()), info


@families
def test_auto_processor_loads_where_its_packages_are(
    name: str, folder_of: Callable[[str], Path]
) -> None:
    """`needs` names what is missing, if anything is."""
    checkpoint = CHECKPOINTS[name]
    if not missing(checkpoint.needs):
        processor = AutoProcessor.from_pretrained(folder_of(name))
        assert type(processor).__name__ == checkpoint.processor["processor_class"]
        return
    # transformers 5.0 fails on the class that it does not find.
    kinds, message = (ImportError, TypeError), r"Torchvision|num2words|SmolVLMProcessor|NoneType"
    with pytest.raises(kinds, match=message):
        AutoProcessor.from_pretrained(folder_of(name))
    if not missing(checkpoint.images_need):
        load_processor(checkpoint, folder_of(name))


@families
def test_yes_and_no_are_tokens(name: str, load: Load) -> None:
    """With and without a space before them, two different tokens each."""
    tokenizer = load(name).processor.tokenizer
    for word in ("yes", "no", "Yes", "No"):
        with_space, without = (
            tokenizer.encode(text, add_special_tokens=False) for text in (f"a {word}", f"\n{word}")
        )
        assert tokenizer.decode(with_space[-1:]).strip() == word
        assert tokenizer.decode(without[-1:]).strip() == word
        assert with_space[-1] != without[-1]


@families
def test_text_survives_the_tokenizer(name: str, load: Load, scenes: Scenes) -> None:
    tokenizer = load(name).processor.tokenizer
    for item in scenes.questions["random"]:
        ids = tokenizer.encode(item.question, add_special_tokens=False)
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == item.question
        assert len(ids) < 16


@families
@pytest.mark.parametrize("count", [1, 2])
def test_eah_finds_every_placeholder(
    name: str, count: int, load: Load, pictures: list[Image.Image]
) -> None:
    if count > CHECKPOINTS[name].shown:
        pytest.skip(f"prompts of {name} hold one picture")
    loaded = load(name)
    inputs = encode(loaded.processor, loaded.checkpoint, QUESTIONS[:1], [pictures[:count]])
    columns = image_columns(loaded, inputs)
    assert columns.sum() >= 4 * count
    assert image_tokens(loaded, inputs) == [tuple(columns.sum(dim=1).tolist())] * layers(loaded)


@families
def test_a_prompt_begins_only_once(name: str, load: Load, pictures: list[Image.Image]) -> None:
    """Tokenizer and template both know the first token; the prompt has it once."""
    loaded = load(name)
    inputs = encode(loaded.processor, loaded.checkpoint, QUESTIONS[:1], [pictures[:1]])
    first = loaded.processor.tokenizer.bos_token_id
    expected = 0 if first is None or name == "blip-2" else 1  # its tokenizer adds none here
    assert int((inputs["input_ids"] == first).sum() if first is not None else 0) == expected


@families
def test_a_batch_answers_as_one_by_one(name: str, load: Load, pictures: list[Image.Image]) -> None:
    """Prompts of three lengths with pictures of three shapes, padded on the left."""
    loaded = load(name)
    seen = [[pictures[0]], [pictures[1].resize((224, 120))], [pictures[2].resize((100, 224))]]
    together = encode(loaded.processor, loaded.checkpoint, QUESTIONS, seen)
    mask = together["attention_mask"]
    assert not mask.all()
    assert mask[:, -1].all()
    batch = answers(loaded, together)
    alone = [
        answers(loaded, encode(loaded.processor, loaded.checkpoint, [question], [shown]))[0]
        for question, shown in zip(QUESTIONS, seen, strict=True)
    ]
    assert (batch == alone) == (not loaded.checkpoint.varies)


@families
def test_answers_depend_on_picture_and_question(
    name: str, load: Load, pictures: list[Image.Image]
) -> None:
    """Random weights answer nonsense, but each picture and each question its own."""
    loaded = load(name)
    by_picture = [logits(loaded, QUESTIONS[0], picture) for picture in pictures]
    scale = by_picture[0].std()
    other_question = logits(loaded, QUESTIONS[1], pictures[0])
    assert (other_question - by_picture[0]).abs().max() > 0.1 * scale
    for other in by_picture[1:]:
        assert (other - by_picture[0]).abs().max() > 0.01 * scale
    batch = encode(
        loaded.processor, loaded.checkpoint, QUESTIONS[:1] * 6, [[shown] for shown in pictures[:6]]
    )
    assert len({tuple(answer) for answer in answers(loaded, batch)}) > 1


@families
def test_eah_changes_the_logits_and_leaves_no_trace(
    name: str, load: Load, pictures: list[Image.Image]
) -> None:
    loaded = load(name)
    inputs = encode(loaded.processor, loaded.checkpoint, QUESTIONS[:1], [pictures[:1]])
    before = forward(loaded, inputs)
    # Random attention hardly has sinks: some column of some head is above a tenth of uniform.
    config = eah.EAHConfig.preset("scale-free", layers=(1,), threshold=0.1)
    with eah.enabled(loaded.model, config) as handle:
        shared = forward(loaded, inputs)
        report = handle.report()[0]
        loaded.model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    assert report.skipped is None
    assert report.image_tokens == (int(image_columns(loaded, inputs).sum()),)
    assert (shared - before).abs().max() > 1e-3 * before.std()
    assert torch.equal(forward(loaded, inputs), before)


@videos
def test_a_video_of_four_frames(name: str, load: Load, pictures: list[Image.Image]) -> None:
    absent = missing(CHECKPOINTS[name].needs)
    if absent:
        pytest.skip(f"videos of {name} need {', '.join(absent)}")
    loaded = load(name)
    inputs = encode_video(loaded.processor, QUESTIONS[0], frames(pictures[:4]))
    columns = image_columns(loaded, inputs)
    assert columns.sum() >= 4
    assert image_tokens(loaded, inputs) == [tuple(columns.sum(dim=1).tolist())] * layers(loaded)
    other = encode_video(loaded.processor, QUESTIONS[0], frames(pictures[4:8]))
    assert (forward(loaded, inputs) - forward(loaded, other)).abs().max() > 1e-2
    assert len(answers(loaded, inputs)[0]) > 0


def frames(pictures: list[Image.Image]) -> torch.Tensor:
    """Return pictures as a video, (T, C, H, W) uint8."""
    return torch.stack([torch.tensor(np.asarray(p)) for p in pictures]).permute(0, 3, 1, 2)


def layers(loaded: Loaded) -> int:
    return int(loaded.model.config.get_text_config().num_hidden_layers)


def image_columns(loaded: Loaded, inputs: Inputs) -> torch.Tensor:
    """Return where the placeholders of pictures and videos are, shape (B, S) bool."""
    names = {loaded.checkpoint.placeholder, loaded.checkpoint.film} - {None}
    ids = loaded.processor.tokenizer.convert_tokens_to_ids(sorted(names))
    return torch.isin(inputs["input_ids"], torch.tensor(ids))


@torch.no_grad()
def image_tokens(loaded: Loaded, inputs: Inputs) -> list[tuple[int, ...]]:
    """Return how many image tokens EAH sees, per layer and batch row."""
    with eah.observe(loaded.model, layers="all") as seen:
        loaded.model(**inputs)
        return [layer.image_tokens for layer in seen.report()]


@torch.no_grad()
def forward(loaded: Loaded, inputs: Inputs) -> torch.Tensor:
    """Return the logits of the last token."""
    return loaded.model(**inputs).logits[:, -1]


def logits(loaded: Loaded, question: str, picture: Image.Image) -> torch.Tensor:
    inputs = encode(loaded.processor, loaded.checkpoint, [question], [[picture]])
    return forward(loaded, inputs)[0]


@torch.no_grad()
def answers(loaded: Loaded, inputs: Inputs) -> list[list[int]]:
    """Return the greedy answers' ids, without the padding behind them."""
    made = loaded.model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    end = loaded.model.generation_config.eos_token_id
    rows = made[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]
