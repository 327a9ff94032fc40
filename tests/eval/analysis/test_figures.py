"""Figures: that they draw the numbers given, their files, and that they change nothing else."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from math import isnan, nan
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox
from PIL import Image

from eval.analysis.claim import Claim
from eval.analysis.figures import panel
from eval.analysis.figures.ablations import ablation_figures
from eval.analysis.figures.claims import claim_figures
from eval.analysis.figures.files import csv_text, inline_svg, png_bytes, svg_text, write_figures
from eval.analysis.figures.maps import map_figures
from eval.analysis.figures.panel import Figure, check_matplotlib
from eval.analysis.figures.pictures import picture_figure
from eval.analysis.report import report_figures
from eval.errors import EvaluationError
from eval.stats.intervals import Interval
from tests.eval.analysis import planted

ROOT = Path(__file__).parents[3]


def numbers(figure: Figure) -> list[list[float]]:
    """Return what a figure's CSV says, read back; an empty cell is nan."""
    _, *rows = csv.reader(io.StringIO(csv_text(figure.rows)))
    return [[float(cell) if cell else nan for cell in row] for row in rows]


def named(figures: list[Figure], part: str) -> Figure:
    (found,) = [figure for figure in figures if part in figure.name]
    return found


def drawn_image(figure: Figure) -> np.ma.MaskedArray:
    return figure.figure.axes[0].images[0].get_array()


# Maps


def test_a_heat_map_draws_the_map_and_its_csv_says_the_same() -> None:
    found = planted.head_map()
    figures = map_figures(found)

    expected = {"density-0.002": found.density[0], "density-0.004": found.density[1],
                "densest-0.002": found.densest[0], "image-attention": found.attention}  # fmt: skip
    for name, values in expected.items():
        figure = named(figures, name)
        rows = np.array(numbers(figure))
        assert rows[:, 0].tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(rows[:, 1:], values)
        np.testing.assert_array_equal(drawn_image(figure), values)
    assert np.argmax(drawn_image(named(figures, "density-0.002"))) == 1 * 4 + 3


def test_a_head_that_a_layer_lacks_is_an_empty_cell() -> None:
    figure = named(map_figures(planted.head_map(missing=[(2, 3)])), "density-0.002")

    assert figure.rows[0] == ("layer", "head 0", "head 1", "head 2", "head 3")
    assert csv_text(figure.rows).splitlines()[3].startswith("2,0.")
    assert csv_text(figure.rows).splitlines()[3].endswith(",")
    assert np.argwhere(np.ma.getmaskarray(drawn_image(figure))).tolist() == [[2, 3]]
    assert figure.figure.axes[0].patch.get_hatch()
    whole = named(map_figures(planted.head_map()), "density-0.002")
    assert not whole.figure.axes[0].patch.get_hatch()


def test_the_share_of_dense_heads_has_a_line_for_each_gamma() -> None:
    found = planted.head_map(gammas=(0.05, 0.15, 0.7))
    figure = named(map_figures(found), "dense-heads-0.004")

    np.testing.assert_array_equal(np.array(numbers(figure))[:, 1:], found.dense_share[1].T)
    lines = figure.figure.axes[0].lines
    np.testing.assert_array_equal([line.get_ydata() for line in lines], found.dense_share[1])
    looks = {(line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == 3  # told apart in grey, too


def test_colours_mean_the_same_at_every_threshold() -> None:
    found = planted.head_map()
    found.density[0] *= 0.5

    figures = [one for one in map_figures(found) if "-density-" in one.name]

    limits = [figure.figure.axes[0].images[0].get_clim() for figure in figures]
    assert limits == [(0, planted.DENSE)] * 2


def test_layers_keep_their_indices() -> None:
    one = planted.head_map(layers=2)
    gaps = type(one)(**{**{n: getattr(one, n) for n in one.__slots__}, "layers": (3, 17)})

    for figure in map_figures(gaps):
        assert [row[0] for row in numbers(figure)] == [3, 17]
        axes = figure.figure.axes[0]
        labels = axes.get_yticklabels() if axes.images else axes.get_xticklabels()
        assert [label.get_text() for label in labels] == ["3", "17"]


def test_a_saturated_layer_is_said() -> None:
    found = planted.head_map()
    found.saturated[0, 2] = 0.4

    captions = [figure.caption for figure in map_figures(found)]

    said = [text for text in captions if "layer 2 every image token is a sink" in text]
    assert len(said) == 1
    assert "40 % of the prompts" in said[0]


# Claim


def test_densities_of_both_kinds_of_answers_are_drawn() -> None:
    claim = planted.claim()
    density = named(claim_figures([claim]), "claim-density")

    expected = [
        [x.layer, x.without.value, x.without.low, x.without.high,
         x.hallucinating.value, x.hallucinating.low, x.hallucinating.high]
        for x in claim.layers
    ]  # fmt: skip
    np.testing.assert_array_equal(numbers(density), expected)
    first, second = density.figure.axes[0].lines
    assert list(first.get_ydata()) == [one.without.value for one in claim.layers]
    assert list(second.get_ydata()) == [one.hallucinating.value for one in claim.layers]


def test_only_layers_with_a_finding_are_marked() -> None:
    claim = planted.claim(layers=8, planted=[1, 5])
    figure = named(claim_figures([claim]), "claim-difference")

    assert [row[0] for row in figure.rows[1:] if row[-1]] == [1, 5]
    assert [one.layer for one in claim.layers if one.is_found] == [1, 5]
    _, unmarked, found = (line for line in figure.figure.axes[0].lines)
    assert list(found.get_xdata()) == [1, 5]
    assert list(unmarked.get_xdata()) == [0, 2, 3, 4, 6, 7]
    assert found.get_marker() != unmarked.get_marker()
    assert np.array([row[1:4] for row in figure.rows[1:]], dtype=float).tolist()[:7] == [
        [one.difference.value, one.difference.low, one.difference.high] for one in claim.layers[:7]
    ]


def test_an_interval_without_ends_is_a_point() -> None:
    claim = planted.claim()
    assert isnan(claim.layers[-1].difference.low)

    figure = named(claim_figures([claim]), "claim-difference")

    assert csv_text(figure.rows).splitlines()[-1] == "3,0.0,,,,,False"
    assert png_bytes(figure)


def test_all_models_share_one_figure_and_its_scale() -> None:
    claims = [planted.claim("a"), planted.claim("b", 6, ()), planted.claim("c")]
    figure = claim_figures(claims)[0]

    assert figure.name == "all-models-claim"
    assert [row[0] for row in figure.rows[1:]] == ["a"] * 4 + ["b"] * 6 + ["c"] * 4
    panels = figure.figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == ["a", "b", "c"]
    assert len({axes.get_ylim() for axes in panels}) == 1
    assert len(claim_figures(claims)) == 7
    assert claim_figures([]) == []


def test_a_claim_without_any_number_is_drawn() -> None:
    none = type(planted.claim().layers[0])(0, *[planted.NONE] * 3, nan, nan)
    claim = Claim("m", "a wrong answer", "threshold 1", 1, 0, 0, (none,))

    for figure in claim_figures([claim]):
        assert png_bytes(figure)
        assert svg_text(figure)


# Ablation


def test_an_ablation_draws_values_baseline_and_the_papers_numbers() -> None:
    found = planted.ablation()
    figure = named(ablation_figures([found]), "ablation-layers")

    header, baseline, *rows = figure.rows
    assert header == ("layers", "accuracy, %", "low", "high", "paper")
    assert baseline == ("baseline", 84.0, 82.5, 85.5, 84.9)
    points = found.axes[0].points
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    np.testing.assert_allclose([row[1] for row in rows], [100 * p.metric.value for p in points])
    np.testing.assert_allclose([row[2] for row in rows], [100 * p.metric.low for p in points])
    assert [row[4] for row in rows][1] == 86.0
    assert np.isnan([row[4] for row in rows]).tolist() == [True, False, True, True]
    assert "EAH paper; 2nd" in figure.caption
    lines = {line.get_label(): line for line in figure.figure.axes[0].lines}
    assert lines["paper, EAH"].get_markerfacecolor() == panel.CARD
    np.testing.assert_array_equal(lines["paper, EAH"].get_ydata(), [nan, 86.0, nan, nan])
    assert list(lines["baseline"].get_ydata()) == [84.0, 84.0]


@pytest.mark.parametrize(
    ("metric", "better"), [("accuracy, %", "better →"), ("CHAIRs, %", "← better")]
)
def test_a_figure_says_which_direction_is_better(metric: str, better: str) -> None:
    figure = ablation_figures([planted.ablation(metric=metric)])[0]

    assert figure.figure.axes[0].get_ylabel() == f"{metric}  ({better})"
    assert ("Higher is better" in figure.caption) == (better == "better →")


def test_an_ablation_without_the_papers_numbers_names_no_source() -> None:
    whole = planted.ablation()
    bare = type(whole)(
        **{**{n: getattr(whole, n) for n in whole.__slots__},
           "paper_baseline": None, "axes": whole.axes[1:]}
    )  # fmt: skip

    for figure in ablation_figures([bare]):
        assert "paper" not in figure.caption
        assert "paper" not in {line.get_label() for line in figure.figure.axes[0].lines}


def test_a_metric_that_is_no_share_is_not_turned_into_percent() -> None:
    whole = planted.ablation()
    plain = type(whole)(**{**{n: getattr(whole, n) for n in whole.__slots__}, "percent": False})

    assert ablation_figures([plain])[0].rows[1][1] == 0.84


# Pictures


def test_a_picture_shows_the_shared_head_and_one_that_changes() -> None:
    view = planted.picture(grid=(4, 16))
    figure = picture_figure(view)
    layer = view.layers[1]
    changed = int(np.abs(layer.after - layer.before).sum(1).argmax())

    assert figure.rows[0][3:] == (
        "head 3, shared", "head 3, shared: sink",
        f"head {changed}, before EAH", f"head {changed}, before EAH: sink",
        f"head {changed}, after EAH", f"head {changed}, after EAH: sink",
    )  # fmt: skip
    rows = np.array(figure.rows[1:], dtype=np.float64)
    assert rows[:, :3].tolist() == [[at, *divmod(at, 16)] for at in range(64)]
    np.testing.assert_array_equal(rows[:, 3].astype(np.float32), layer.before[3])
    np.testing.assert_array_equal(rows[:, 6], layer.sinks_before[changed])
    np.testing.assert_array_equal(rows[:, 7].astype(np.float32), layer.before[3])


@pytest.mark.parametrize("grid", [(8, 8), None])
def test_a_picture_that_eah_leaves_alone_has_one_pair(grid: tuple[int, int] | None) -> None:
    view = planted.picture(layers=1, grid=grid)

    figure = picture_figure(view)

    assert [name for name in figure.rows[0] if "sink" not in name][3:] == [
        "head 3, before EAH", "head 3, after EAH",
    ]  # fmt: skip
    assert (figure.rows[1][1] == "") == (grid is None)
    assert png_bytes(figure)


# Files


@pytest.mark.parametrize(
    "report",
    [
        planted.report(),
        planted.report(
            maps=[planted.head_map("big", 32, 32, missing=[(31, 31)])],
            claims=[planted.claim("big", 32), planted.claim("$x^$ \u4e2d </svg>")],
        ),
        planted.report(
            maps=[planted.head_map(layers=1, heads=1)],
            claims=[planted.claim(layers=1)],
            pictures=[planted.picture(layers=1, grid=None, tokens=32)],
        ),
    ],
    ids=["whole", "big", "one layer"],
)  # fmt: skip
def test_files_are_the_same_at_every_writing(report: planted.SinkReport, tmp_path: Path) -> None:
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        figures = report_figures(report).all()
        write_figures(folder, figures)
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})

    assert written[0] == written[1]
    names = {figure.name for figure in figures}
    assert set(written[0]) == {f"{name}.{end}" for name in names for end in ("csv", "png", "svg")}
    for name in names:
        ElementTree.fromstring(written[0][f"{name}.svg"])
        with Image.open(io.BytesIO(written[0][f"{name}.png"])) as image:
            assert image.width in (800, 1800)
            assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
        assert b"date" not in written[0][f"{name}.svg"].lower()


def test_figures_of_models_with_alike_names_have_different_files() -> None:
    claims = [planted.claim("a/b"), planted.claim("a b")]
    figures = report_figures(planted.report(claims=claims, pictures=[planted.picture()] * 2)).all()

    names = [figure.name for figure in figures]
    assert len(set(names)) == len(names)
    assert {"a-b-claim-density", "a-b-claim-density-2"} <= set(names)


def test_every_axis_has_a_name() -> None:
    for figure in report_figures(planted.report(pictures=[])).all():
        axes = figure.figure.axes
        assert axes[0].get_xlabel()
        assert all(one.get_ylabel() for one in axes), figure.name


def texts_of(figure: Figure) -> list[Bbox]:
    """Return where titles, legends, the names of axes and the labels of ticks are."""
    found: list[Artist] = [figure.figure._suptitle]  # type: ignore[attr-defined]  # no other way
    with panel.house_style():
        FigureCanvasAgg(figure.figure).draw()
        for axes in figure.figure.axes:
            legend = axes.get_legend()
            found += [axes._left_title, *([legend] if legend else [])]  # type: ignore[attr-defined]
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                inside = [one for one in axis.get_major_ticks() if low <= one.get_loc() <= high]
                found += [axis.label, *(one.label1 for one in inside), *(x.label2 for x in inside)]
        boxes = [one.get_window_extent() for one in found if one.get_visible()]
    return [box for box in boxes if box.width > 1 and box.height > 1]


def test_text_lies_inside_of_the_figure_and_apart() -> None:
    report = planted.report(
        maps=[planted.head_map("a-model-with-a-long-name-13b", 40, 40)],
        claims=[planted.claim("llava-1.5", 32), planted.claim("b", 40)],
        pictures=[],
    )
    for figure in report_figures(report).all():
        whole = figure.figure.bbox
        boxes = texts_of(figure)
        assert len(boxes) > 6
        for at, box in enumerate(boxes):
            assert whole.x0 - 1 <= box.x0 <= box.x1 <= whole.x1 + 1, figure.name
            assert whole.y0 - 1 <= box.y0 <= box.y1 <= whole.y1 + 1, figure.name
            for other in boxes[:at]:
                width = min(box.x1, other.x1) - max(box.x0, other.x0)
                height = min(box.y1, other.y1) - max(box.y0, other.y0)
                assert min(width, height) <= 1, figure.name


def test_the_users_settings_change_nothing_and_are_kept() -> None:
    expected = png_bytes(map_figures(planted.head_map())[0])
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "none"}):
        before = dict(matplotlib.rcParams)
        figure = map_figures(planted.head_map())[0]

        assert png_bytes(figure) == expected
        assert dict(matplotlib.rcParams) == before


def test_svg_in_a_page_has_its_colours_and_its_own_ids() -> None:
    first, second = map_figures(planted.head_map(missing=[(0, 0)]))[:2]
    svgs = [inline_svg(first), inline_svg(second)]

    ids = [re.findall(r' id="([^"]*)"', svg) for svg in svgs]
    assert ids[0]
    assert ids[1]
    assert not set(ids[0]) & set(ids[1])
    for svg, own in zip(svgs, ids, strict=True):
        used = re.findall(r'(?:href="|url\()#([^")]+)', svg)
        assert set(used) == set(own)
        assert len(own) == len(set(own))
        assert "<style" not in svg
        assert "http" not in svg
        assert "var(--ink)" in svg
        assert panel.INK not in svg
        assert panel.CARD not in svg
        assert 'role="img"' in svg
        ElementTree.fromstring(svg.replace("xlink:href", "href"))


def test_the_label_of_an_svg_is_escaped() -> None:
    svg = inline_svg(claim_figures([planted.claim('"><script>alert(1)</script>')])[0])

    assert "<script" not in svg
    assert 'aria-label="&quot;&gt;&lt;script&gt;' in svg


def test_matplotlib_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panel.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(EvaluationError, match=r"pip install '\.\[plots\]'"):
        check_matplotlib()
    with pytest.raises(EvaluationError, match="matplotlib, which is not installed"):
        map_figures(planted.head_map())


def test_the_page_is_imported_without_matplotlib() -> None:
    program = (
        "import sys, eval.analysis.page, eval.analysis.figures.files; "
        "print({'matplotlib', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "set()"


def test_an_interval_is_written_as_it_is() -> None:
    text = csv_text((("a", "b"), (1, nan), ("x,y", Interval(1.0, 0.5, 2.0).low)))

    assert text == 'a,b\n1,\n"x,y",0.5\n'
