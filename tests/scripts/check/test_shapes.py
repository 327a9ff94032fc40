"""True sizes without weights: the original tensors of each model, counted by hand."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from models import ModelError
from models.checkpoints.layouts import LAYOUTS
from models.checkpoints.plan import PartRules, Rule
from scripts.check.shapes import main, mapping

ROOT = Path(__file__).resolve().parents[3]

LLAMA = 32 * 9 + 3  # per layer 7 projections and 2 norms; embeddings, last norm, head
CLIP = 24 * 16 + 7  # per layer 4 projections, 2 norms, 2 linear; class, patches, positions, 2 norms
EVA = 39 * 13 + 4  # fused query, key, value without bias, and a bias of query and value
ATTENTION, FEED_FORWARD = 10, 6  # of the Q-Former, with their norms
QFORMER = 12 * (ATTENTION + FEED_FORWARD) + 6 * ATTENTION + 1 + 2 + 2


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("llava-1.5", {"llm": LLAMA + 4, "vision": CLIP}),
        ("shikra", {"llm": LLAMA + 2, "vision": CLIP}),
        (
            "instructblip",
            {"llm": LLAMA, "vision": EVA, "qformer": QFORMER + 12 * FEED_FORWARD + 2 + 2},
        ),
        ("minigpt4", {"llm": LLAMA, "vision": EVA, "qformer": QFORMER, "projector": 2}),
    ],
)
def test_every_original_tensor_has_one_place(model: str, parts: dict[str, int]) -> None:
    found = mapping(model)

    assert Counter(item.part for item in found) == parts
    assert len({(item.part, item.source) for item in found}) == len(found)
    assert len({item.destination for item in found}) == len(found)


def test_shapes_are_those_of_the_checkpoints() -> None:
    shapes = {item.source: item.shape for item in mapping("instructblip")}

    assert shapes["blocks.38.attn.qkv.weight"] == (4224, 1408)
    assert shapes["blocks.38.attn.q_bias"] == (1408,)
    assert shapes["pos_embed"] == (1, 257, 1408)
    assert shapes["Qformer.bert.encoder.layer.10.crossattention.self.key.weight"] == (768, 1408)
    assert shapes["Qformer.bert.embeddings.word_embeddings.weight"] == (30523, 768)
    assert shapes["llm_proj.weight"] == (4096, 768)
    assert "Qformer.bert.encoder.layer.11.crossattention.self.key.weight" not in shapes
    assert "blocks.39.attn.qkv.weight" not in shapes


def test_a_map_with_a_hole_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = LAYOUTS["shikra"]
    shards = original["llm"]
    holed = PartRules(
        tuple(rule for rule in shards.rules if rule.source != "lm_head.weight"), shards.ignored
    )
    monkeypatch.setitem(LAYOUTS, "shikra", {**original, "llm": holed})

    with pytest.raises(ModelError, match=r"no rule leads to lm_head.weight"):
        mapping("shikra")


def test_a_map_that_is_not_one_to_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = LAYOUTS["shikra"]
    wrong = PartRules(
        (Rule("model.norm.weight", "lm_head.weight"), *original["llm"].rules[1:]),
        original["llm"].ignored,
    )
    monkeypatch.setitem(LAYOUTS, "shikra", {**original, "llm": wrong})

    with pytest.raises(ModelError):
        mapping("shikra")


def test_the_command_lists_the_patterns() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/check/shapes.py", "minigpt4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    line = next(x for x in done.stdout.splitlines() if "blocks.{i}.attn.v_bias" in x)
    assert line.split("|")[3].strip().endswith("qkv.bias (rows, third 2)")
    assert [cell.strip() for cell in line.split("|")[4:6]] == ["1408", "39"]
    assert "minigpt4: 1061 original tensors, 7.833 billion numbers" in done.stdout


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["tiny-llava"])

    assert stopped.value.code == 2
