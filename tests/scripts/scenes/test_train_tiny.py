"""What tiny-llava is trained on is what it is asked."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from models.llava import Llava
from models.tokenizer import SentencePieceTokenizer
from scripts.scenes.make import scene_of
from scripts.scenes.packing import IGNORE, Packer, Segment, segments
from scripts.scenes.samples import Sample, covered_patches
from scripts.scenes.scene import CATEGORIES
from scripts.scenes.text import QUESTION_DESCRIBE, answer, describe, question
from scripts.scenes.train_tiny import build_model

TOKENIZER = Path(__file__).resolve().parents[3] / "models/tiny-llava/tokenizer.model"


@pytest.fixture(scope="module")
def vlm() -> Llava:
    torch.manual_seed(0)
    return Llava(build_model(640), SentencePieceTokenizer(TOKENIZER), protocol="opera")


def test_a_packed_segment_sees_what_it_sees_alone(vlm: Llava) -> None:
    """States of each segment in a packed batch equal those of the same prompt by itself."""
    asked = [
        Segment(QUESTION_DESCRIBE, "The image features a cat and two birds."),
        Segment(question("cat"), answer("cat", present=True), "cat", True),
        Segment(question("stop sign"), "No", "stop sign", False),
    ]
    features = torch.randn(1, 64, 128)
    packer = Packer(vlm)
    embedding = vlm.model.get_input_embeddings()
    with torch.no_grad():
        packed = packer.pack([asked])
        before = embedding(torch.tensor([packer.before]))
        together = vlm.model.model.language_model(
            inputs_embeds=torch.cat([before, features, embedding(packed.ids)], dim=1),
            attention_mask=packed.mask,
            position_ids=packed.positions,
        ).last_hidden_state
        at = packer.prefix
        for segment in asked:
            ids, _ = packer.encode(segment)
            embeds = torch.cat([before, features, embedding(torch.tensor([ids]))], dim=1)
            alone = vlm.model.model.language_model(inputs_embeds=embeds).last_hidden_state
            torch.testing.assert_close(
                together[:, at : at + len(ids)], alone[:, -len(ids) :], rtol=1e-4, atol=1e-5
            )
            at += len(ids)


def test_the_probe_reads_the_last_token_of_the_name(vlm: Llava) -> None:
    packer = Packer(vlm)
    for name in ("cat", "stop sign", "umbrella"):
        packed = packer.pack([[Segment(question(name), "Yes", name, True)]])
        (row,), (column,) = packed.name_rows.tolist(), packed.name_columns.tolist()
        ids = packed.ids[row].tolist()

        upto = vlm.tokenizer.decode(ids[: column - packer.prefix + 1])
        assert upto.strip() == question(name).removesuffix(" in the image?")


def test_only_answers_are_learned(vlm: Llava) -> None:
    sentence = Segment(question("cat"), answer("cat", present=True), "cat", True)
    word = Segment(question("cat"), "Yes", "cat", True)
    for segment, end in ((sentence, [vlm.tokenizer.eos_id()]), (word, [])):
        ids, labels = Packer(vlm).encode(segment)
        learned = [label for label in labels if label != IGNORE]

        assert learned == ids[-len(learned) :] == vlm.tokenizer.encode(segment.answer) + end


def test_questions_are_true_and_balanced() -> None:
    scene, _ = scene_of(1, 0)
    sample = Sample(
        torch.empty(0), torch.empty(0), tuple(scene.names), scene.theme, describe(scene)
    )

    described, *asked = segments(sample, random.Random(0))

    assert (described.question, described.answer) == (QUESTION_DESCRIBE, describe(scene))
    for segment in asked:
        assert segment.present == (segment.name in scene.names)
        assert segment.answer.startswith("Yes" if segment.present else "No")
    assert sum(segment.present for segment in asked) == len(asked) / 2 == len(scene.names)


def test_covered_patches_are_those_inside_the_boxes() -> None:
    scene, _ = scene_of(1, 3)
    covered = covered_patches(scene, 8)
    names = [CATEGORIES[i].name for i in covered.any(0).nonzero().flatten()]

    assert sorted(names) == sorted(scene.names)
