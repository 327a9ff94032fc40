import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from eah import EAHConfig
from eah.method import choose, column_sums, share_head
from eah.visibility import Visibility
from scripts.bench import costs, sections
from scripts.bench.released import (
    WAYS,
    LayerShape,
    attention_map,
    extra_bytes,
    make_layer,
    share_map,
)

SHAPE = LayerShape(heads=4, tokens=96, size=16, released_span=(6, 86))
THRESHOLD = 0.013


@pytest.mark.parametrize("seed", range(8))
def test_released_way_computes_the_preset_released_code(seed: int) -> None:
    layer = make_layer(SHAPE, torch.device("cpu"), seed=seed)
    attn_weights = attention_map(layer)
    found = share_map(attn_weights, SHAPE.released_span, THRESHOLD)

    config = EAHConfig.preset("released-code", image_span=SHAPE.released_span, threshold=THRESHOLD)
    image = torch.zeros(1, SHAPE.tokens, dtype=torch.bool)
    image[:, slice(*SHAPE.released_span)] = True
    columns = column_sums(
        layer.query, layer.key, Visibility(), scaling=SHAPE.size**-0.5, rounding=layer.query.dtype
    )
    choice = choose(columns, image, config)
    query, key = share_head(layer.query, layer.key, choice.head)
    expected = F.scaled_dot_product_attention(query, key, layer.value, is_causal=True)

    assert found.head == choice.head.item()
    assert found.counts == choice.counts[0].tolist()
    torch.testing.assert_close(attn_weights @ layer.value, expected)


def test_released_cases_have_both_outcomes() -> None:
    heads = set()
    for seed in range(8):
        attn_weights = attention_map(make_layer(SHAPE, torch.device("cpu"), seed=seed))
        heads.add(share_map(attn_weights, SHAPE.released_span, THRESHOLD).head)

    assert -1 in heads
    assert len(heads) > 2


def test_inputs_lie_in_memory_as_transformers_leaves_them() -> None:
    query = make_layer(SHAPE, torch.device("cpu")).query

    assert query.shape == (1, 4, 96, 16)
    assert query.transpose(1, 2).is_contiguous()


def test_command_prints_a_table_and_writes_every_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "bench.json"
    chosen = ["--sections", "layer", "model"]
    costs.main(["--device", "cpu", "--tiny", "--repeats", "2", *chosen, "--json", str(file)])

    printed = capsys.readouterr().out
    assert f"torch {torch.__version__}" in printed
    assert "threads" in printed
    assert "| layer, H 2, S 640, D 16 | time, ms | released |" in printed
    assert "| llava-1.5 of 2 layers and width 64, batch 1 | decoding, tokens/s | EAH |" in printed
    written = json.loads(file.read_text())
    assert written["finished"]
    rows = written["rows"]
    assert [row["arm"] for row in rows[:3]] == ["plain", "eah", "released"]
    assert all(len(row["values"]) == len(row["ratios"]) == 2 for row in rows)


def test_no_rounds_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        costs.main(["--repeats", "0"])

    assert "--repeats 0: at least one round is needed" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_no_time_is_refused(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        costs.main(["--minutes", minutes])

    assert "name a number above 0, or leave it out" in capsys.readouterr().err


@pytest.mark.slow
def test_command_measures_memory_in_fresh_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sections, "WAYS", {"eah": WAYS["eah"]})

    costs.main(["--device", "cpu", "--tiny", "--repeats", "1", "--sections", "memory"])

    printed = capsys.readouterr().out
    assert "| layer, H 2, S 640, D 16 | extra memory, MiB | eah |" in printed


def test_extra_memory_counts_the_map_that_the_released_way_builds() -> None:
    shape = LayerShape(heads=2, tokens=2048, size=16)

    # (H, S, S) in float32, at least once.
    assert extra_bytes("released", shape) >= 4 * 2 * 2048 * 2048


@pytest.mark.gpu
def test_command_runs_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert costs.main(["--device", "cuda:0", "--tiny", "--repeats", "1"]) == 0

    assert "peak memory, MiB" in capsys.readouterr().out
