"""The report page: all of a judging run on it, and nothing that leaves it or runs in it."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest

from eval.gpt4v_eval import main
from tests.eval.judge_inputs import flags_for, write_inputs
from tests.eval.judge_stub import SECRET, Stub, grades_by_hash, serve

ATTACK = '<script>alert(1)</script><img src="http://evil/x" onerror=alert(1)>'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    write_inputs(folder, 3)
    path = folder / "captions_eah.jsonl"
    path.write_text(path.read_text().replace("A eah picture 2", ATTACK.replace('"', '\\"')))

    def fault(text: str, attempt: int) -> str:
        return "refusal" if "picture 3" in text else "well"

    def answer(text: str) -> str:
        return f"Both good {ATTACK}" if "picture 1 " in text else grades_by_hash(text)

    with pytest.MonkeyPatch.context() as patch, serve(Stub(fault=fault, answer=answer)) as stub:
        patch.setenv("OPENAI_API_KEY", SECRET)
        assert main([*flags_for(folder, stub.url), "--report", str(folder / "r.html")]) == 0
    return (folder / "r.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Collects the tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_has_no_script(page: str) -> None:
    tags = Tags(page)

    assert tags.open == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags.found}
    assert "default-src 'none'" in page
    for _, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/jpeg"))


def test_answers_and_replies_are_text(page: str) -> None:
    assert ATTACK not in page
    assert page.count(html.escape(ATTACK, quote=False).replace('"', "&#34;")) >= 2


def test_each_picture_has_both_answers_and_both_judgements(page: str) -> None:
    cards = re.findall(r"<article.*?</article>", page, flags=re.DOTALL)

    assert len(cards) == 3
    for card in cards:
        assert card.count("data:image/jpeg;base64,") == 1
        assert "A baseline picture" in card
        assert len(re.findall(r"baseline first:|eah first:", card)) == 2
    assert "unparsed</span>" in cards[0]
    assert "does not count" in cards[0]
    assert re.search(r"accuracy [0-9.]+ : [0-9.]+, (tie|\w+ wins)", cards[1])
    assert "refused</span> I can&#39;t judge that." in cards[2]


def test_the_top_has_the_numbers_and_what_they_depend_on(page: str) -> None:
    top = page.split("<main>")[0]

    assert "eah against baseline on 3 pictures" in top
    assert "no interval" in top  # One picture counts.
    assert "over the 1 of 3 pictures" in top
    assert "<dt>image size</dt><dd>768</dd>" in top
    assert "prefers-color-scheme: dark" in page
