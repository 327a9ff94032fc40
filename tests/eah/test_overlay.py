"""`seen.overlay` draws what was observed, and says what it can't draw."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import eah
from eah.handle import Observer
from eah.overlay import COLORS, MEANS, Panel, draw
from tests.eah import tiny
from tests.eah.tiny import CONFIG, IMAGE_TOKENS, SPAN, logits

SIZE = (160, 120)
GRID = (4, 4)


@pytest.fixture
def picture() -> Image.Image:
    return Image.effect_noise(SIZE, 80).convert("RGB")


def observed(rows: int = 2, **settings: Any) -> Observer:
    model = tiny.tiny_llava()
    with eah.observe(model, **{"config": CONFIG, **settings}) as seen:
        logits(model, tiny.image_prompt(rows))
    return seen


def heats(figure: Any) -> list[np.ndarray[Any, Any]]:
    """Return what is drawn in colours, panel by panel."""
    images = [image for axes in figure.axes for image in axes.images]
    return [image.get_array().data for image in images if image.get_cmap().name == COLORS]


def outlines(figure: Any) -> list[set[tuple[tuple[float, float], ...]]]:
    """Return the lines that are drawn in each panel."""
    found = []
    for axes in figure.axes[1:3]:
        lines = axes.collections[-1].get_segments()
        found.append({tuple(map(tuple, np.asarray(line).tolist())) for line in lines})
    return found


def test_a_heads_map_is_drawn_before_and_after(picture: Image.Image) -> None:
    seen = observed()
    report = seen.report()[1]
    chosen = (report.heads or {})["config"][1]
    head = (chosen + 1) % 4

    figure = seen.overlay(picture, head=head, row=1)
    before, after = heats(figure)

    assert np.array_equal(before, report.means[1][head].view(GRID))
    assert np.array_equal(after, report.means[1][chosen].view(GRID))
    assert not np.array_equal(before, after)
    labels = [axes.get_title() for axes in figure.axes]
    assert labels[1:3] == [f"layer 1, head {head}, without EAH", f"layer 1, head {head}, with EAH"]
    assert figure.axes[3].get_ylabel() == MEANS
    assert np.array_equal(figure.axes[0].images[0].get_array(), np.asarray(picture))


def test_without_a_head_means_over_heads_are_drawn(picture: Image.Image) -> None:
    seen = observed()
    report = seen.report()[2]
    chosen = (report.heads or {})["config"][0]

    before, after = heats(seen.overlay(picture, layer=2))

    assert np.allclose(before, report.means[0].mean(0).view(GRID))
    assert np.allclose(after, report.means[0][chosen].view(GRID))


def test_heads_that_do_not_receive_keep_their_map(picture: Image.Image) -> None:
    seen = observed(config=eah.EAHConfig.preset("scale-free", receivers=1))
    report = seen.report()[1]
    ((receiver,), _) = report.receivers
    other = next(h for h in range(4) if h not in (receiver, (report.heads or {})["config"][0]))

    kept, changed = (heats(seen.overlay(picture, head=head)) for head in (other, receiver))

    assert np.array_equal(*kept)
    assert not np.array_equal(*changed)


def around(sinks: torch.Tensor) -> set[tuple[tuple[float, float], ...]]:
    """Return the lines between sinks (4, 4) and what is around them."""
    width, height = SIZE[0] / 4, SIZE[1] / 4
    found = set()
    for r in range(4):
        for c in range(4):
            beside = ((r, c - 1), (r, c + 1), (r - 1, c), (r + 1, c))
            left, right, top, bottom = (c * width, (c + 1) * width, r * height, (r + 1) * height)
            sides = (
                ((left, top), (left, bottom)),
                ((right, top), (right, bottom)),
                ((left, top), (right, top)),
                ((left, bottom), (right, bottom)),
            )
            for (y, x), line in zip(beside, sides, strict=True):
                inside = 0 <= y < 4 and 0 <= x < 4
                if bool(sinks[r, c]) and not (inside and bool(sinks[y, x])):
                    found.add(line)
    return found


def test_sinks_are_outlined(picture: Image.Image) -> None:
    seen = observed()
    report = seen.report()[1]
    chosen = (report.heads or {})["config"][0]
    before, after = (report.is_sink[0][head].view(GRID) for head in (2, chosen))
    assert 0 < before.sum() < IMAGE_TOKENS
    assert not torch.equal(before, after)

    assert outlines(seen.overlay(picture, head=2)) == [around(before), around(after)]


def test_over_heads_sinks_of_more_than_half_are_outlined(picture: Image.Image) -> None:
    seen = observed(config=eah.EAHConfig.preset("scale-free", threshold=0.7))
    heads = seen.report()[1].is_sink[0].sum(0).view(GRID)
    counts = set(heads.flatten().tolist())
    assert min(counts) <= 2 < max(counts), "of four heads"

    assert outlines(seen.overlay(picture))[0] == around(heads > 2)


def test_layers_are_chosen_by_the_settings(picture: Image.Image) -> None:
    assert "layer 1," in observed().overlay(picture).axes[1].get_title()
    assert "layer 0," in observed(layers=(0, 2)).overlay(picture).axes[1].get_title()
    assert "layer 2," in observed().overlay(picture, layer=2).axes[1].get_title()


def test_a_rule_of_ones_own_has_no_outlines(picture: Image.Image) -> None:
    def first(columns: Any, image: torch.Tensor) -> Any:
        counts = torch.ones(columns.attention.shape[:2], dtype=torch.long)
        return eah.method.Choice(torch.zeros(len(image), dtype=torch.long), counts)

    seen = observed(config=eah.EAHConfig(rule=first))

    assert outlines(seen.overlay(picture, head=1)) == [set(), set()]


def test_pictures_are_files_arrays_and_grey(picture: Image.Image, tmp_path: Path) -> None:
    seen, file = observed(), tmp_path / "a.png"
    picture.save(file)

    for given in (picture, file, str(file), np.asarray(picture)):
        shown = seen.overlay(given).axes[0].images[0].get_array()
        assert np.array_equal(shown, np.asarray(picture))
    grey = np.asarray(picture)[..., 0]
    assert np.array_equal(seen.overlay(grey).axes[0].images[0].get_array()[..., 1], grey)


def test_figures_are_written_without_pyplot(picture: Image.Image, tmp_path: Path) -> None:
    figure = observed().overlay(picture)

    for ending in ("png", "svg"):
        figure.savefig(tmp_path / f"figure.{ending}")

    assert Image.open(tmp_path / "figure.png").size == (900, 300)
    assert MEANS in (tmp_path / "figure.svg").read_text(encoding="utf-8")


def test_tokens_without_a_place_are_a_strip(picture: Image.Image) -> None:
    values = np.linspace(0, 0.1, 32)
    sinks = values > 0.09

    figure = draw(picture, None, [Panel("before", values, sinks), Panel("after", values, ~sinks)])

    assert [heat.shape for heat in heats(figure)] == [(1, 32)] * 2
    assert figure.axes[1].get_xlabel() == "image token, in order"
    first = int(sinks.argmax())
    edges = {x for line in outlines(figure)[0] for x, _ in line}
    assert (min(edges), max(edges)) == (first - 0.5, 31.5)


def refused(match: str, picture: Any, seen: Observer, **asked: Any) -> None:
    with pytest.raises(eah.EAHError, match=match):
        seen.overlay(picture, **asked)


def test_what_can_not_be_drawn_is_said(picture: Image.Image, tmp_path: Path) -> None:
    seen = observed()

    refused(r"layer=7 was not observed; observed are 0, 1, 2", picture, seen, layer=7)
    refused(r"head=4, but layer 1 has heads 0\.\.3", picture, seen, head=4)
    refused(r"head=-1, but layer 1 has heads 0\.\.3", picture, seen, head=-1)
    refused(r"row=2, but the pass had 2 batch row", picture, seen, row=2)
    refused(r"grid=\(3, 4\) has 12 cells; pass grid=.* the 16 image", picture, seen, grid=(3, 4))
    refused(r"grid=\(16,\); pass grid=\(rows, columns\)", picture, seen, grid=(16,))
    refused("image is of type float; pass a PIL picture", 0.5, seen)
    refused("image can't be read: .*absent.png", tmp_path / "absent.png", seen)


def test_what_was_not_observed_is_said(picture: Image.Image) -> None:
    model = tiny.tiny_llava()

    with eah.observe(model) as seen:
        refused("nothing was observed yet", picture, seen)
        logits(model, tiny.text_prompt())
        refused("in layer 1: the prompt has no image tokens", picture, seen)


def test_a_model_whose_grid_is_not_known_asks_for_it(picture: Image.Image) -> None:
    model = tiny.tiny_llama()
    with eah.observe(model) as seen, eah.image_tokens(model, SPAN):
        logits(model, tiny.text_prompt())

    refused(r"16 image tokens of a llama model .* pass grid=\(rows, columns\)", picture, seen)
    assert heats(seen.overlay(picture, grid=(2, 8)))[0].shape == (2, 8)


def test_matplotlib_is_asked_for(picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = importlib.util.find_spec
    monkeypatch.setattr(
        "eah.overlay.find_spec", lambda name: None if name == "matplotlib" else plain(name)
    )

    refused("pip install matplotlib", picture, observed())
