"""The report page: what it shows, that captions can't harm it, and how it works in a browser."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eval.errors import EvaluationError
from eval.stats.intervals import Interval, McNemar
from eval.tasks.chair import truth as chair_truth
from eval.tasks.chair.analyzers import choose
from eval.tasks.chair.captions import read_captions
from eval.tasks.chair.compare import Comparison, compare
from eval.tasks.chair.output import ChairResult
from eval.tasks.chair.report import report_page
from eval.tasks.chair.scoring import METRICS, ScoredArm, ScoredCaption, score
from eval.tasks.chair.vocabulary import Mention
from tests.eval.browser import dump

OBJECTS = {"table": "dining table", "woman": "person", "cup": "cup", "dog": "dog", "dogs": "dog"}
ATTACK = '<script>alert(1)</script></script><img src="http://evil/x" onerror=alert(1)>" \'&amp;'
VOID = {"meta", "img", "input", "br", "link", "wbr"}


@dataclass
class Element:
    """An element of a parsed page."""

    tag: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    @property
    def plain(self) -> str:
        """The text with ordinary spaces."""
        return self.text.replace("\N{NO-BREAK SPACE}", " ")

    @property
    def text(self) -> str:
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return "".join(parts)

    def __iter__(self) -> Iterator[Element]:
        """Go through the element and all below it."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child

    def all(self, tag: str, **wanted: str) -> list[Element]:
        wanted = {name.rstrip("_"): value for name, value in wanted.items()}
        return [one for one in self if one.tag == tag and wanted.items() <= one.attributes.items()]

    def one(self, tag: str, **wanted: str) -> Element:
        (found,) = self.all(tag, **wanted)
        return found


class Tree(HTMLParser):
    """Builds elements; a page with tags that don't match is an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open = [Element("", {})]
        self.feed(page)
        self.close()
        assert len(self.open) == 1, f"<{self.open[-1].tag}> is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def scored(
    image_id: int, text: str, truth: str = "", words: Mapping[str, str] = OBJECTS
) -> ScoredCaption:
    found = re.finditer("|".join(map(re.escape, words)), text)
    mentions = tuple(Mention(m[0], words[m[0]], *m.span()) for m in found)
    objects = frozenset(name for name in truth.split(",") if name)
    return ScoredCaption(image_id, text, mentions, objects, len(text.split()))


def arms(*captions: Sequence[ScoredCaption]) -> list[ScoredArm]:
    names = ("baseline", "eah", "third")
    return [ScoredArm(name, tuple(rows)) for name, rows in zip(names, captions, strict=False)]


@pytest.fixture
def two() -> list[ScoredArm]:
    return arms(
        [
            scored(7, "A woman at a table.\n\nA cup.", "person,dining table,fork"),
            scored(3, "Two dogs and a dog.", "dog"),
            scored(12, "A cup.", "dog"),
        ],
        [
            scored(12, "A cup on a cup.", "dog"),
            scored(7, "A woman.", "person,dining table,fork"),
            scored(3, "Nothing.", "dog"),
        ],
    )


def written(path: Path, scored_arms: Sequence[ScoredArm], **options: Any) -> Element:
    comparisons = tuple(options.pop("comparisons", ()))
    result = ChairResult(tuple(scored_arms), comparisons, options.pop("facts", {}), ())
    (path / "report.html").write_text(report_page(result, **options), "utf-8", "backslashreplace")
    return Tree((path / "report.html").read_text(encoding="utf-8")).open[0]


def facets(page: Element) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(page.one("script", id="facets").text)
    return found


def marks(caption: Element) -> list[tuple[str, str | None, bool]]:
    return [
        (mark.text, mark.attributes["data-object"], mark.attributes.get("class") == "wrong")
        for mark in caption.all("mark")
    ]


# What the page shows


def test_mentions_are_marked_in_place_and_the_text_is_kept(
    tmp_path: Path, two: list[ScoredArm]
) -> None:
    page = written(tmp_path, two)

    first = page.one("article", **{"data-id": "7"}).all("p", class_="text")
    assert [caption.text for caption in first] == ["A woman at a table.\n\nA cup.", "A woman."]
    assert marks(first[0]) == [
        ("woman", "person", False), ("table", "dining table", False), ("cup", "cup", True),
    ]  # fmt: skip


def test_a_mark_says_its_object_and_is_told_apart_without_colour(
    tmp_path: Path, two: list[ScoredArm]
) -> None:
    page = written(tmp_path, two)

    titles = {mark.attributes.get("title") for mark in page.all("mark")}
    assert {"dining table: in the picture", "cup: not in the picture"} <= titles
    style = page.all("style")[0].text
    assert re.search(r"mark \{[^}]*text-decoration: underline var", style)
    assert re.search(r"mark\.wrong \{[^}]*font-weight: 700; text-decoration: underline wavy", style)
    assert re.search(r"\.text \{[^}]* white-space: pre-line; \}", style)


def test_real_captions_come_out_as_they_went_in(tmp_path: Path, shared: Path) -> None:
    truth = chair_truth.read(shared / "coco/chair_ground_truth.json.gz").objects
    analyzer = choose("lexicon")
    files = [shared / f"captions/llava-1.5/{name}.jsonl" for name in ("greedy", "beam5")]
    given = [
        ScoredArm(name, score(captions, truth, analyzer))
        for file in files
        for name, captions in read_captions(
            file, image_id_key="image_id", caption_key="caption"
        ).items()
    ]
    page = written(tmp_path, given, comparisons=[compare(given[1], given[0], analyzer)])

    articles = {article.attributes["data-id"]: article for article in page.all("article")}
    expected = list(zip(*(arm.captions for arm in given), strict=True))
    found = [[*articles[str(row[0].image_id)].all("p", class_="text")] for row in expected]
    assert len(articles) == len(expected)
    assert [[one.text for one in row] for row in found] == [
        [c.text for c in row] for row in expected
    ]
    assert [[marks(one) for one in row] for row in found] == [
        [
            [(c.text[m.start : m.stop], m.object, m.object not in c.truth) for m in c.mentions]
            for c in row
        ]
        for row in expected
    ]


def test_pictures_where_arms_differ_come_first_then_the_first_arm_s_order(
    tmp_path: Path, two: list[ScoredArm]
) -> None:
    extra = ScoredArm("third", (scored(12, "A dog.", "dog"), scored(99, "A cup.", "cup")))
    page = written(tmp_path, [*two, extra])

    articles = page.all("article")
    # Of 7 and 12 only some captions hallucinate a cup; of 3 and 99 all agree.
    assert [article.attributes["data-id"] for article in articles] == ["7", "12", "3", "99"]
    assert [h4.text for h4 in articles[0].all("h4")] == ["baseline", "eah", "third"]
    assert [len(article.all("p", class_="text")) for article in articles] == [2, 3, 2, 1]
    assert articles[3].text.count("no caption of this picture") == 2


def test_objects_that_no_caption_mentions_are_muted(tmp_path: Path, two: list[ScoredArm]) -> None:
    page = written(tmp_path, [*two, ScoredArm("third", (scored(99, "A dog."),))])

    article = page.one("article", **{"data-id": "7"})
    assert [one.text for one in article.all("li", class_="object")] == ["dining table", "person"]
    assert [one.text for one in article.all("li", class_="object unmentioned")] == ["fork"]
    assert "none of COCO's objects" in page.one("article", **{"data-id": "99"}).text


def test_each_caption_says_how_many_mentions_are_hallucinated(
    tmp_path: Path, two: list[ScoredArm]
) -> None:
    page = written(tmp_path, two)

    lines = [" ".join(line.text.split()) for line in page.all("p", class_="counts")]
    assert lines == [
        "1 of 3 mentions hallucinated: cup; 7 words",
        "0 of 1 mentions hallucinated; 2 words",
        "0 of 2 mentions hallucinated; 5 words",
        "0 of 0 mentions hallucinated; 1 words",
        "1 of 1 mentions hallucinated: cup; 2 words",
        "2 of 2 mentions hallucinated: cup; 5 words",
    ]


def test_the_top_has_metrics_comparisons_and_facts(tmp_path: Path, two: list[ScoredArm]) -> None:
    comparison = compare(two[1], two[0], choose("lexicon"))
    page = written(tmp_path, two, comparisons=[comparison], facts={"ground_truth": "abc 123"})

    differences, metrics = page.all("table")  # where the arms differ comes first
    assert [one.text for one in page.all("h2")] == [
        "Where the arms differ", "Numbers of each arm", "Pictures",
    ]  # fmt: skip
    cells = [cell.text for cell in metrics.all("td")]
    assert cells == [
        f"{100 * found.value:.1f}{100 * found.low:.1f} to {100 * found.high:.1f}"
        for arm in two
        for found in arm.intervals.values()
    ]
    assert cells[0].startswith("66.7")  # 2 of 3 captions
    assert cells[3].startswith("4.7")  # 14 words in 3 captions
    assert "eah minus baseline" in differences.one("thead").text
    rows = differences.all("tr")[1:]
    assert [row.all("span")[0].text for row in rows] == [
        found.points().replace(" (", "").strip(")") for found in comparison.differences.values()
    ]
    assert rows[0].one("td", class_="verdict").one("small").text == (
        f"McNemar p = {comparison.p_holm:.2g}, 1 captions gained, 0 lost"
    )
    facts = page.one("dl", class_="facts")
    assert (facts.one("dt").text, facts.one("dd").text) == ("ground truth", "abc 123")


def differing(low: float, high: float) -> dict[str, Interval]:
    """Return the same difference in each metric, in percent."""
    return dict.fromkeys(METRICS, Interval((low + high) / 200, low / 100, high / 100))


@pytest.mark.parametrize(("ends", "verdicts", "sentence"), [
    ((-4, -2), ["better", "better", "worse", "shorter"],
     "eah hallucinates in fewer captions than baseline: CHAIRs 33.3 % against 66.7 %, "
     "difference -3.0 points (95 % interval -4.0 to -2.0; McNemar p = 0.9, 2 captions "
     "gained, 1 lost)."),
    ((2, 4), ["worse", "worse", "better", "longer"],
     "eah hallucinates in more captions than baseline: "),
    ((-4, 2), ["n.s."] * 4,
     "No difference can be claimed in how often eah and baseline hallucinate: "),
])  # fmt: skip
def test_only_a_difference_whose_interval_excludes_0_is_a_verdict_and_coloured(
    tmp_path: Path, two: list[ScoredArm], ends: tuple[float, float], verdicts: list[str],
    sentence: str,
) -> None:  # fmt: skip
    one = Comparison("eah", "baseline", differing(*ends), McNemar(2, 1, 0.9), None, 0.9)
    page = written(tmp_path, two, comparisons=[one])

    rows = page.all("table")[0].all("tr")[1:]
    assert [row.one("b").text for row in rows] == verdicts
    kinds = [row.attributes.get("class") for row in rows]
    known = {"better": "better", "worse": "worse", "n.s.": None}
    assert kinds == [known.get(verdict, "differs") for verdict in verdicts]
    assert page.one("header").all("p", class_="lead")[0].plain.startswith(sentence)


def test_several_arms_are_grouped_by_metric_on_one_scale(
    tmp_path: Path, two: list[ScoredArm]
) -> None:
    third = ScoredArm("third", two[1].captions)
    found = [
        Comparison(name, "baseline", differing(*ends), McNemar(0, 0, 1.0), None, 1.0)
        for name, ends in (("eah", (-10, 10)), ("third", (5, 20)))
    ]
    page = written(tmp_path, [*two, third], comparisons=found)

    group = page.all("table")[0].all("tbody")[0]
    assert group.one("th", scope="rowgroup").text == "CHAIRsin points; lower is better"
    assert [row.text for row in group.all("th", scope="row")] == ["eah", "third"]
    styles = [one.attributes["style"] for one in group.all("i", class_="range")]
    assert styles == ["left:25.0%;width:50.0%", "left:62.5%;width:37.5%"]  # from -20 to +20
    assert "bars in points: -20 to +20; in words: -20 to +20" in page.all("thead")[0].text


def test_one_picture_has_no_interval(tmp_path: Path) -> None:
    page = written(tmp_path, arms([scored(1, "A dog.", "dog")]))

    assert [cell.text for cell in page.all("td")][2] == "100.0no interval from one picture"
    assert "nan" not in page.one("table").text


# Filters


def test_filters_know_what_all_arms_mention_and_where_they_differ(
    tmp_path: Path, two: list[ScoredArm]
) -> None:
    page = written(tmp_path, two)

    assert page.one("select", name="object").attributes["data-facet"] == "mentioned"
    assert facets(page) == [
        {
            "id": 7,
            "mentioned": ["cup", "dining table", "person"],
            "hallucinated": ["cup"],
            "wrong": 1,
            "differs": True,
        },
        {"id": 3, "mentioned": ["dog"], "hallucinated": [], "wrong": 0, "differs": False},
        {"id": 12, "mentioned": ["cup"], "hallucinated": ["cup"], "wrong": 1, "differs": False},
    ]
    options = [
        (one.attributes["value"], one.text)
        for one in page.one("select", name="object").all("option")
    ]
    assert options == [
        ("", "any"),
        ("cup", "cup: 2, hallucinated in 2"),
        ("dining table", "dining table: 1, hallucinated in 0"),
        ("dog", "dog: 1, hallucinated in 0"),
        ("person", "person: 1, hallucinated in 0"),
    ]


def test_one_arm_has_no_filter_for_differences(tmp_path: Path, two: list[ScoredArm]) -> None:
    names = {one.attributes.get("name") for one in written(tmp_path, two).one("form")}
    assert {"search", "object", "hallucinated", "differs"} <= names

    alone = written(tmp_path, two[:1])
    assert not alone.all("input", name="differs")
    assert len(alone.all("p", class_="text")) == 3


def test_without_javascript_all_is_shown_but_the_filters(
    tmp_path: Path, two: list[ScoredArm]
) -> None:
    page = written(tmp_path, two)

    assert "hidden" in page.one("form", id="filters").attributes
    assert not any("hidden" in one.attributes for one in page.all("article"))
    for control in [*page.one("form").all("input"), *page.all("select")]:
        assert any(control in list(label) for label in page.all("label"))


# Harmless


def test_captions_and_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    words = {"<b>dog</b>": ATTACK}
    given = [ScoredArm(ATTACK, (scored(1, f"{ATTACK} <b>dog</b> {ATTACK}", "", words),)),
             ScoredArm("eah", (scored(1, "<b>dog</b>\n" + ATTACK, ATTACK, words),))]  # fmt: skip
    page = written(tmp_path, given, facts={ATTACK: ATTACK}, images=picture_folder(tmp_path))

    assert len(page.all("script")) == 2
    assert [img.attributes["alt"] for img in page.all("img")] == ["Picture 1"]
    assert not any(name.startswith("on") for one in page for name in one.attributes)
    texts = [one.text for one in page.all("p", class_="text")]
    assert texts == [f"{ATTACK} <b>dog</b> {ATTACK}", "<b>dog</b>\n" + ATTACK]
    assert facets(page)[0]["mentioned"] == [ATTACK]
    assert page.all("option")[1].attributes["value"] == ATTACK
    assert page.one("article").all("mark")[0].attributes["title"] == f"{ATTACK}: not in the picture"
    assert page.one("h1").text == f"CHAIR: {ATTACK}, eah"
    assert page.one("title").text == f"CHAIR: {ATTACK}, eah"


def test_nothing_leaves_the_page(tmp_path: Path, two: list[ScoredArm]) -> None:
    page = written(tmp_path, two, images=picture_folder(tmp_path))

    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|fetch\(|import\(|XMLHttp", source)
    assert not any(page.all(tag) for tag in ("link", "iframe", "object", "embed", "base"))
    for element in page:
        assert "srcset" not in element.attributes
        assert (element.attributes.get("href") or "#").startswith("#")
        assert (element.attributes.get("src") or "data:").startswith("data:")
    assert not any("src" in script.attributes for script in page.all("script"))


def test_the_policy_lets_only_the_page_s_own_script_run(
    tmp_path: Path, two: list[ScoredArm]
) -> None:
    check_policy(written(tmp_path, two), scripts=1)


def check_policy(page: Element, *, scripts: int) -> None:
    """Check that only the scripts of a page may run, and that nothing else is loaded."""
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    own = [one.text.encode() for one in page.all("script") if "type" not in one.attributes]
    digests = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in own]
    assert len(own) == scripts
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
        + " ".join(f"'sha256-{digest}'" for digest in digests)
    )


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path: Path) -> None:
    page = written(tmp_path, arms([scored(1, "A \ud83d dog.", "dog")]))

    assert page.one("p", class_="text").text == r"A \ud83d dog."


def test_the_page_is_a_whole_document_and_the_same_each_time(
    tmp_path: Path, two: list[ScoredArm]
) -> None:
    page = written(tmp_path, two)
    first = (tmp_path / "report.html").read_bytes()
    written(tmp_path, two)

    assert first == (tmp_path / "report.html").read_bytes()
    assert first.lstrip().startswith(b"<!DOCTYPE html>\n")
    assert page.one("html").attributes["lang"] == "en"
    assert page.one("title").text == "CHAIR: baseline, eah"
    assert page.one("meta", name="viewport").attributes["content"] == (
        "width=device-width, initial-scale=1"
    )


# Pictures


def picture_folder(path: Path) -> Path:
    folder = path / "pictures"
    folder.mkdir()
    Image.new("RGB", (640, 427), "teal").save(folder / "COCO_val2014_000000000007.jpg")
    Image.new("P", (100, 50)).save(folder / "1.png")
    return folder


def test_pictures_are_inside_the_page_and_small(tmp_path: Path, two: list[ScoredArm]) -> None:
    page = written(tmp_path, two, images=picture_folder(tmp_path))

    image = page.one("article", **{"data-id": "7"}).one("img").attributes
    kind, _, content = (image["src"] or "").partition(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert (kind, picture.format, picture.size) == ("data:image/jpeg", "JPEG", (640, 427))
        red, green, blue = picture.convert("RGB").getpixel((320, 200))  # type: ignore[misc]
    assert (red < 10, abs(green - 128) < 5, abs(blue - 128) < 5) == (True, True, True)
    assert (image["width"], image["height"], image["loading"]) == ("640", "427", "lazy")


def test_many_pictures_are_smaller(tmp_path: Path) -> None:
    given = arms([scored(number, "A dog.") for number in range(7, 108)])
    page = written(tmp_path, given, images=picture_folder(tmp_path))

    assert [one.attributes["width"] for one in page.all("img")] == ["320"]


def test_each_picture_is_in_a_button_that_enlarges_it(tmp_path: Path, two: list[ScoredArm]) -> None:
    page = written(tmp_path, two, images=picture_folder(tmp_path))

    (button,) = page.all("button", class_="enlarge")
    assert button.one("img").attributes["alt"] == "Picture 7"
    assert button.attributes["aria-label"] == "Enlarge: Picture 7"
    assert "disabled" in button.attributes  # until the script runs
    assert page.one("dialog", id="enlarged").all("button")


def test_a_small_picture_is_not_enlarged(tmp_path: Path) -> None:
    page = written(tmp_path, arms([scored(1, "A dog.")]), images=picture_folder(tmp_path))

    assert page.one("img").attributes["width"] == "100"


def test_a_picture_that_can_t_be_shown_says_why(tmp_path: Path, two: list[ScoredArm]) -> None:
    folder = picture_folder(tmp_path)
    whole = (folder / "COCO_val2014_000000000007.jpg").read_bytes()
    (folder / "COCO_val2014_000000000007.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "12.jpeg").write_text("no picture")
    Image.effect_noise((400, 400), 80).save(folder / "broken5.png")
    start, second, rest = (folder / "broken5.png").read_bytes().split(b"IDAT", 2)
    (folder / "broken5.png").write_bytes(b"IDAT".join([start, second]) + b"\0DAT" + rest)
    page = written(tmp_path, [*two, ScoredArm("third", (scored(5, "A dog."),))], images=folder)

    assert not page.all("img")
    problems = [one.text for one in page.all("p", class_="problem quiet")]
    assert len(problems) == 4
    assert problems[0].startswith(
        "COCO_val2014_000000000007.jpg can't be read: image file is trunc"
    )
    assert problems[1:3] == [f"no picture with this id in {folder}", "12.jpeg is not a picture"]
    assert problems[3].startswith("broken5.png can't be read: broken PNG file")


def test_a_page_without_a_folder_has_no_room_for_pictures(
    tmp_path: Path, two: list[ScoredArm]
) -> None:
    page = written(tmp_path, two)

    assert not page.all("img") + page.all("p", class_="problem quiet")
    assert not page.all("article", class_="pictured")


def test_a_folder_without_pictures_is_an_error(tmp_path: Path, two: list[ScoredArm]) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(EvaluationError, match=r"no pictures in .*empty"):
        written(tmp_path, two, images=tmp_path / "empty")
    assert not (tmp_path / "report.html").exists()


# In a browser

PROBE = """<!DOCTYPE html><html><body><pre id="found"></pre><script>
const found = [];
document.addEventListener("load", ({ target: frame }) => {
  const page = frame.contentDocument, form = page.getElementById("filters");
  const change = (name, set) => {
    set(form.querySelector(`[name=${name}]`));
    form.dispatchEvent(new frame.contentWindow.Event("input"));
  };
  %s;
  found[frame.dataset.at] = {
    shown: [...page.querySelectorAll("article:not([hidden])")].map((card) => card.dataset.id),
    count: page.getElementById("count").textContent,
    filters: !form.hidden,
    nothing: !page.getElementById("nothing").hidden,
    hash: frame.contentWindow.location.hash,
    title: page.title,
    outlined: [...page.querySelectorAll("article mark")]
      .filter((mark) => frame.contentWindow.getComputedStyle(mark).outlineStyle === "solid").length,
    widths: [frame.contentWindow.innerWidth, page.documentElement.scrollWidth],
    alerts: frame.contentWindow.alerts ?? 0,
  };
  document.getElementById("found").textContent = JSON.stringify(found);
}, true);
</script>%s</body></html>"""


def visited(page: Path, fragments: Sequence[str], *, act: str = "") -> list[dict[str, Any]]:
    """Open a page 400 pixels wide with each fragment, act on it, and return what is seen."""
    frames = "".join(
        f'<iframe data-at="{at}" src="{page.name}#{html.escape(fragment)}" width="400"></iframe>'
        for at, fragment in enumerate(fragments)
    )
    dumped = dump(page.with_name("probe.html"), PROBE % (act, frames))
    found: list[dict[str, Any]] = json.loads(Tree(dumped).open[0].one("pre", id="found").text)
    assert len(found) == len(fragments)
    return found


def test_a_link_opens_the_page_filtered(tmp_path: Path, two: list[ScoredArm]) -> None:
    written(tmp_path, two)
    expected = {
        "": ["7", "3", "12"],
        "object=cup": ["7", "12"],
        "object=dining+table": ["7"],
        "object=dining+table&hallucinated=on": [],
        "object=cup&hallucinated=on": ["7", "12"],
        "hallucinated=on": ["7", "12"],
        "differs=on": ["7"],
        "object=dog&differs=on": [],
        "search=3": ["3"],
        "search=TABLE.+a+cup": ["7"],
        "search=a+cup": ["7", "12"],
        "search=zebra": [],
        "object=zebra&other=1&__proto__=1&%5D%21=1": ["7", "3", "12"],
    }

    found = visited(tmp_path / "report.html", list(expected))

    assert [one["shown"] for one in found] == list(expected.values())
    assert [one["count"] for one in found] == [
        f"{len(ids)} of 3 pictures shown" for ids in expected.values()
    ]
    assert all(one["filters"] for one in found)
    assert [one["nothing"] for one in found] == [not ids for ids in expected.values()]
    assert [one["outlined"] for one in found][:3] == [0, 4, 1]


def test_a_filter_changes_the_link_and_show_all_undoes_it(
    tmp_path: Path, two: list[ScoredArm]
) -> None:
    written(tmp_path, two)
    filter_ = 'change("object", (select) => { select.value = "dining table"; })'
    check = 'change("differs", (box) => { box.checked = true; })'

    (chosen,) = visited(tmp_path / "report.html", [""], act=f"{filter_}; {check}")
    (undone,) = visited(
        tmp_path / "report.html",
        ["search=cup&hallucinated=on"],
        act=f'{filter_}; page.getElementById("show-all").click()',
    )

    assert (chosen["hash"], chosen["shown"]) == ("#object=dining+table&differs=on", ["7"])
    assert (undone["hash"], undone["shown"]) == ("", ["7", "3", "12"])


def test_the_order_can_be_chosen(tmp_path: Path, two: list[ScoredArm]) -> None:
    written(tmp_path, two)

    found = visited(tmp_path / "report.html", ["", "sort=id", "sort=-wrong", "sort=id&object=cup"])

    shown = [one["shown"] for one in found]
    assert shown == [["7", "3", "12"], ["3", "7", "12"], ["7", "12", "3"], ["7", "12"]]


def test_a_picture_enlarges_and_gets_the_focus_back(tmp_path: Path, two: list[ScoredArm]) -> None:
    written(tmp_path, two, images=picture_folder(tmp_path))
    act = """
      const button = page.querySelector("button.enlarge"), dialog = page.querySelector("dialog");
      button.focus(); button.click();
      const same = dialog.querySelector("img")?.src === button.querySelector("img").src;
      const states = [dialog.open, same];
      dialog.addEventListener("close", () => {
        found[frame.dataset.at].states = [...states, dialog.open, page.activeElement === button];
        document.getElementById("found").textContent = JSON.stringify(found);
      });
      dialog.querySelector("button").click();
    """

    (found,) = visited(tmp_path / "report.html", [""], act=act)

    assert found["states"] == [True, True, False, True]


def test_filters_are_folded_in_a_narrow_window(tmp_path: Path, two: list[ScoredArm]) -> None:
    written(tmp_path, two)

    (found,) = visited(
        tmp_path / "report.html", [""],
        act='page.title = page.querySelector("#filters details").open',
    )  # fmt: skip
    wide = (tmp_path / "probe.html").read_text().replace('width="400"', 'width="1200"')
    dumped = json.loads(
        Tree(dump(tmp_path / "wide.html", wide)).open[0].one("pre", id="found").text
    )

    assert (found["title"], dumped[0]["title"]) == ("false", "true")


def test_a_narrow_window_needs_no_sideways_scrolling(tmp_path: Path) -> None:
    long = "x" * 300
    given = [ScoredArm(name, (scored(7, f"A dog {long}.", long), scored(8, "A dog.", "dog")))
             for name in ("baseline", "eah" * 40)]  # fmt: skip
    written(tmp_path, given, facts={"file": long}, images=picture_folder(tmp_path))

    (found,) = visited(
        tmp_path / "report.html", [""], act='page.querySelector("details").open = true'
    )

    inner, scrolled = found["widths"]
    assert (inner, scrolled <= inner) == (400, True)


def test_an_attack_does_not_run_and_can_be_filtered_for(tmp_path: Path) -> None:
    attack = "<img src=x onerror=window.alerts=1><script>window.alerts = 1</script>"
    words = {"dog": attack}
    written(tmp_path, arms([scored(1, attack + " dog", "", words), scored(2, attack, "", words)]))
    select = 'change("object", (one) => { one.value = one.options[1].value; })'

    (found,) = visited(tmp_path / "report.html", [""], act=select)

    assert (found["shown"], found["alerts"], found["outlined"]) == (["1"], 0, 1)
