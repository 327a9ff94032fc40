"""The page: what it shows and in which order, that nothing given can harm it, and its pictures."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eval.analysis.page import sinks_page
from eval.analysis.picture import LayerView, PictureView
from eval.analysis.report import report_figures
from eval.analysis.viewer import viewer_data
from tests.eval.analysis import planted
from tests.eval.browser import dump
from tests.eval.tasks.chair.test_report import ATTACK, Element, Tree, check_policy


def parsed(page: str) -> Element:
    # Tags of SVG that close themselves are allowed.
    return Tree(re.sub(r"<(\w+)([^<>]*)/>", r"<\1\2></\1>", page)).open[0]


def held_data(page: Element) -> list[dict[str, Any]]:
    return [json.loads(one.text) for one in page.all("script", type="application/json")]


def decoded(layer: dict[str, Any], side: str, tokens: int) -> NDArray[np.float64]:
    """Return the values that the page holds, (H, I), as its script reads them."""
    bytes_ = np.frombuffer(base64.b64decode(layer[side]), np.uint8).reshape(-1, tokens)
    return np.array(layer["scales"])[:, None] * (bytes_ / 255.0) ** 2


def decoded_sinks(layer: dict[str, Any], side: str, tokens: int) -> NDArray[np.bool_]:
    rows = np.frombuffer(base64.b64decode(layer[f"sinks_{side}"]), np.uint8)
    return np.unpackbits(rows.reshape(layer["heads"], -1), axis=1)[:, :tokens].astype(bool)


# What stands where


def test_the_finding_comes_first_and_details_last() -> None:
    text = sinks_page(planted.report())
    page = parsed(text)

    assert [one.text for one in page.all("h2")] == [
        "Where the sinks are", "Density and hallucination", "What the settings do", "Pictures",
        "Details",
    ]  # fmt: skip
    header = page.one("header").text
    assert "tiny-llava: what the claim's sentence says." in header
    assert "All values are of the same pictures." in header
    assert text.index("what the claim's sentence".replace("'", "&#39;")) < text.index("<svg")
    facts = page.all("dl")[-1].text.split("\n")
    assert [line.strip() for line in facts if line.strip()] == [
        "model" + "tiny-llava", "threshold" + "0.002 (mean attention)",
    ]  # fmt: skip


def test_the_picture_enlarges() -> None:
    page = parsed(sinks_page(planted.report(pictures=[planted.picture()])))

    assert len(page.one("button", class_="enlarge").all("img")) == 1
    assert page.one("dialog", id="enlarged")


def test_without_a_claim_the_densest_shallow_head_is_the_finding() -> None:
    page = parsed(sinks_page(planted.report(claims=[], ablations=[], pictures=[])))

    sentence = page.one("header").one("p", class_="lead").plain
    assert "head 3 of layer 1 is densest" in sentence
    assert "61 % of the image's tokens" in sentence
    assert page.one("main").plain.count(sentence) == 0  # said once
    assert [one.text for one in page.all("h2")] == ["Where the sinks are", "Details"]


def test_the_sentence_looks_at_shallow_layers_only_and_skips_missing_heads() -> None:
    found = planted.head_map(layers=32, heads=32, missing=[(0, 0)])
    found.density[0, 8, 5] = 0.99  # no longer shallow
    assert "layers 0 to 7, head 3 of layer 1 is densest" in found.sentence()
    found.density[0, 7, 5] = 0.98
    assert "head 5 of layer 7 is densest" in found.sentence()
    mean = np.nanmean(found.density[0, :8])
    assert f"{100 * mean:.3g} % in the mean" in found.sentence()


def test_a_map_without_sinks_says_so() -> None:
    found = planted.head_map()
    found.density[:] = 0

    assert "no head of layers 0 to 1 has a vision sink at threshold 0.002" in found.sentence()
    assert "a lower threshold" in found.sentence()


def test_figures_of_the_first_threshold_are_seen_and_others_are_folded() -> None:
    page = parsed(sinks_page(planted.report(claims=[], ablations=[], pictures=[])))

    (folded,) = [one for one in page.all("details") if "Other thresholds" in one.text]
    labels = [one.attributes["aria-label"] or "" for one in folded.all("svg")]
    every = [one.attributes["aria-label"] or "" for one in page.all("svg")]
    assert len(every) == 7
    assert len(labels) == 3
    assert all("threshold 0.004" in label for label in labels)
    assert not any("threshold 0.004" in label for label in set(every) - set(labels))


def test_each_figure_has_its_numbers_as_a_table() -> None:
    report = planted.report(pictures=[])
    figures = report_figures(report)
    page = parsed(sinks_page(report, figures))

    tables = {one.attributes["aria-label"]: one for one in page.all("div", class_="scroll")}
    assert len(page.all("svg")) == len(figures.all())
    for figure in figures.all():
        table = tables[f"Numbers of {figure.title}"]
        assert [one.text for one in table.one("thead").all("th")] == list(figure.rows[0])
        assert len(table.one("tbody").all("tr")) == len(figure.rows) - 1
    density = tables["Numbers of tiny-llava: vision sinks, threshold 0.002 (mean attention)"]
    assert "0.61" in [one.text for one in density.all("td")]
    claim = tables[
        "Numbers of tiny-llava: difference in density, answers without minus with hallucination"
    ]
    assert [one.text for one in claim.all("tr")[-1].all("td")] == ["0", "-", "-", "-", "-", "no"]


# Harm


def test_the_page_loads_nothing_and_runs_its_own_script_only() -> None:
    text = sinks_page(planted.report(claims=[planted.claim(), planted.claim("b", 32)]))
    page = parsed(text)

    assert "http://" not in text
    assert "https://" not in text
    for one in page:
        for name in ("src", "href", "xlink:href"):
            value = one.attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), value
    check_policy(page, scripts=2)  # that of all pages, and that of the maps
    ids = [one.attributes["id"] for one in page if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    assert "nan" not in "".join(one.text for one in page.all("td"))


def test_names_and_questions_are_text() -> None:
    report = planted.report(
        title=ATTACK,
        maps=[planted.head_map(ATTACK)],
        claims=[planted.claim(ATTACK)],
        ablations=[planted.ablation(ATTACK)],
        pictures=[planted.picture(ATTACK, ATTACK, ATTACK)],
        facts={ATTACK: ATTACK},
        notes=[ATTACK],
    )
    page = parsed(sinks_page(report))

    assert page.one("h1").text == ATTACK
    assert page.one("section", class_="viewer").one("h3").text == ATTACK
    assert len(page.all("script")) == 3
    assert not [one for one in page if "onerror" in one.attributes]
    assert len(page.all("img")) == 3


# Pictures


def test_a_picture_decodes_to_the_values_that_were_given() -> None:
    view = planted.picture(heads=5, tokens=60, grid=(6, 10))
    (data,) = held_data(parsed(sinks_page(planted.report(pictures=[view]))))

    assert (data["tokens"], data["rows"], data["columns"], data["placed"]) == (60, 6, 10, True)
    assert (data["start"], data["start_head"]) == (1, int(np.argmax(change(view.layers[1]))))
    for layer, held in zip(view.layers, data["layers"], strict=True):
        assert (held["layer"], held["heads"]) == (layer.layer, 5)
        assert (held["shared"], held["densest"]) == (layer.shared, layer.densest)
        for side in ("before", "after"):
            values = getattr(layer, side)
            scales = np.maximum(layer.before.max(1), layer.after.max(1))[:, None]
            # Half a step of the square root, either way.
            error = np.abs(np.sqrt(decoded(held, side, 60) / scales) - np.sqrt(values / scales))
            assert error.max() <= 0.5 / 255 + 1e-5
            np.testing.assert_array_equal(
                decoded_sinks(held, side, 60), getattr(layer, f"sinks_{side}")
            )


def change(layer: LayerView) -> NDArray[np.float32]:
    return np.abs(layer.after - layer.before).sum(axis=1)


def test_small_values_beside_a_large_one_are_not_lost() -> None:
    before = np.array([[0.3, 0.002, 0.0021]], dtype=np.float32)
    layer = LayerView(0, before, before, before > 0.002, before > 0.002, 0, None)
    view = replace(planted.picture(layers=1, heads=1, grid=None), layers=(layer,))

    held = viewer_data(view)["layers"][0]

    np.testing.assert_allclose(decoded(held, "after", 3), before, rtol=0.05)


def test_numbers_that_are_missing_are_zero() -> None:
    before = np.array([[np.nan, 0.1], [0.0, 0.0]], dtype=np.float32)
    layer = LayerView(0, before, before, before > 1, before > 1, None, None)
    view = replace(planted.picture(layers=1, grid=None), layers=(layer,))

    data = viewer_data(view)

    np.testing.assert_allclose(decoded(data["layers"][0], "before", 2), [[0, 0.1], [0, 0]])
    json.dumps(data, allow_nan=False)
    assert data["start_head"] == 0


def test_layers_may_have_different_numbers_of_heads() -> None:
    few, many = planted.picture(heads=2).layers[0], planted.picture(heads=4).layers[1]
    view = replace(planted.picture(), layers=(few, many))

    (data,) = held_data(parsed(sinks_page(planted.report(pictures=[view]))))

    assert [layer["heads"] for layer in data["layers"]] == [2, 4]
    assert decoded(data["layers"][1], "before", 64).shape == (4, 64)


def test_a_large_picture_stays_small_in_the_page() -> None:
    view = planted.picture(layers=32, heads=32, grid=(24, 24), tokens=576)

    assert len(json.dumps(viewer_data(view))) < 2_000_000


@pytest.mark.parametrize(("tokens", "rows", "said"), [(32, 1, "order."), (576, 18, "32 in a row.")])
def test_tokens_without_places_are_a_strip_and_that_is_said(
    tokens: int, rows: int, said: str
) -> None:
    view = planted.picture(grid=None, tokens=tokens)
    page = parsed(sinks_page(planted.report(pictures=[view])))

    (data,) = held_data(page)
    assert (data["placed"], data["rows"], data["columns"]) == (False, rows, 32)
    viewer = page.one("section", class_="viewer")
    assert f"{tokens} image tokens have no places in the picture" in viewer.text
    assert said in viewer.text
    assert len(viewer.all("img")) == 1  # none beneath the maps


# In a browser, 400 pixels wide

PROBE = """<!DOCTYPE html><html><body><pre id="found"></pre><script>
document.addEventListener("load", ({ target: frame }) => {
  const page = frame.contentDocument;
  const view = frame.contentWindow;
  const one = (name) => page.querySelector(name);
  const press = (name, key) => one(name).dispatchEvent(
    new view.KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const steps = [];
  const note = () => steps.push({
    layer: Number(one("select.layer").value), head: Number(one("select.head").value),
    heads: one("select.head").length, about: one(".about").textContent,
    token: one(".token").textContent,
    counts: [...page.querySelectorAll(".count")].map((count) => count.textContent),
  });
  note();
  %s
  page.querySelectorAll("details").forEach((details) => { details.open = true; });
  document.getElementById("found").textContent = JSON.stringify({
    steps, widths: [view.innerWidth, page.documentElement.scrollWidth], alerts: view.alerts ?? 0,
    wide: [...page.querySelectorAll("main *")].filter((x) => !x.closest("svg, .scroll, details")
      && x.getBoundingClientRect().right > 400.5).map((x) => x.outerHTML.slice(0, 80)),
    pixels: [...page.querySelectorAll("canvas")].map((canvas) =>
      [...canvas.getContext("2d").getImageData(canvas.width - 60, canvas.height - 60, 1, 1).data]),
  });
}, true);
</script>%s</body></html>"""


def visited(page: Path, *, act: str = "") -> dict[str, Any]:
    """Open a page, act on its first picture, and return what is seen after each `note()`."""
    frame = f'<iframe src="{page.name}" width="400" height="900"></iframe>'
    dumped = dump(page.with_name("probe.html"), PROBE % (act, frame))
    (text,) = re.findall(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL)
    found: dict[str, Any] = json.loads(html.unescape(text))
    return found


def written(folder: Path, *pictures: PictureView, **parts: Any) -> Path:
    path = folder / "sinks.html"
    path.write_text(sinks_page(planted.report(pictures=pictures, **parts)), encoding="utf-8")
    return path


def test_buttons_lists_and_arrow_keys_step_through_layers_and_heads(tmp_path: Path) -> None:
    view = planted.picture(tokens=60, grid=(6, 10))
    act = """
      one("button[data-layer='1']").click(); note();
      press(".controls", "ArrowUp"); note();
      press("button", "ArrowRight"); note();
      one("select.layer").value = "0";
      one("select.layer").dispatchEvent(new Event("change")); note();
      for (let i = 0; i < 9; i++) press(".controls", "ArrowLeft"); note();
      for (let i = 0; i < 9; i++) press(".controls", "ArrowDown"); note();
    """

    steps = visited(written(tmp_path, view), act=act)["steps"]

    head = int(np.argmax(change(view.layers[1])))
    places = [(1, head), (2, head), (1, head), (1, head + 1), (0, head + 1), (0, 0), (3, 0)]
    assert [(one["layer"], one["head"]) for one in steps] == places
    for one in steps:
        layer = view.layers[one["layer"]]
        for text, sinks in zip(one["counts"], (layer.sinks_before, layer.sinks_after), strict=True):
            assert text.startswith(f"{sinks[one['head']].sum()} of 60 tokens are sinks")
    assert "gives the map of head 3" in steps[0]["about"]
    assert "EAH starts at layer 1: nothing changes here" in steps[4]["about"]
    assert "shares no map in this layer" in steps[6]["about"]


def test_a_token_says_its_values_by_keys_and_by_pointing(tmp_path: Path) -> None:
    view = planted.picture()
    act = """
      one("canvas").focus(); press("canvas", "ArrowDown"); press("canvas", "ArrowRight"); note();
      const box = one("canvas").getBoundingClientRect();
      one("canvas").dispatchEvent(new view.PointerEvent("pointermove", {
        clientX: box.left + box.width * 0.7, clientY: box.top + box.height * 0.3 }));
      note();
    """

    _, keys, pointed = visited(written(tmp_path, view), act=act)["steps"]

    head = keys["head"]
    layer = view.layers[1]
    for text, token in ((keys["token"], 9), (pointed["token"], 2 * 8 + 5)):
        said = re.fullmatch(
            r"Token (\d+) \(row (\d), column (\d)\): before ([\d.e-]+), (a|no) sink; "
            r"after ([\d.e-]+), (a|no) sink\.",
            text,
        )
        assert said
        assert [int(said[n]) for n in (1, 2, 3)] == [token, *divmod(token, 8)]
        scale = max(layer.before[head].max(), layer.after[head].max())
        for value, sinks, number, is_sink in (
            (layer.before, layer.sinks_before, said[4], said[5]),
            (layer.after, layer.sinks_after, said[6], said[7]),
        ):
            exact = float(value[head, token])
            step = 2 * np.sqrt(exact * scale) * 0.5 / 255 + scale * (0.5 / 255) ** 2
            assert abs(float(number) - exact) <= step + 0.05 * exact
            assert (is_sink == "a") == bool(sinks[head, token])


def test_a_narrow_window_needs_no_sideways_scrolling(tmp_path: Path) -> None:
    long = "x" * 200
    pictures = [
        planted.picture(long, long, long),
        planted.picture(grid=None, tokens=576),
        planted.picture(heads=40, grid=(4, 16)),
    ]

    found = visited(
        written(
            tmp_path, *pictures,
            maps=[planted.head_map(long, 32, 32)], facts={"file": long}, notes=[long],
        )
    )  # fmt: skip

    inner, scrolled = found["widths"]
    assert (inner, scrolled <= inner) == (400, True)
    assert found["wide"] == []
    assert all(pixel[3] for pixel in found["pixels"])  # every map is drawn


def test_an_attack_does_not_run(tmp_path: Path) -> None:
    attack = "</script><script>window.alerts = 1</script><img src=x onerror=window.alerts=1>"
    view = planted.picture(attack, attack, attack)

    found = visited(written(tmp_path, view, title=attack, notes=[attack]))

    assert found["alerts"] == 0
    assert found["steps"][0]["heads"] == 4
