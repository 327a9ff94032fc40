"""Both analyzers: the published numbers with NLTK, nearly the same with the lexicon."""

from __future__ import annotations

import gzip
import json
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from eval.errors import EvaluationError
from eval.tasks.chair.analyzers import (
    LEXICON_FILE,
    QUOTES,
    Analyzer,
    LexiconAnalyzer,
    _spans,
    choose,
)
from eval.tasks.chair.captions import read_captions
from eval.tasks.chair.output import sentence_row
from eval.tasks.chair.scoring import ScoredArm, score
from eval.tasks.chair.vocabulary import load_vocabulary
from eval.tasks.nltk_words import NltkMissing, wordnet
from scripts.data.english import plurals, verb_forms
from scripts.data.make_lexicon import lexicon, table

ROOT = Path(__file__).resolve().parents[4]
FILES = ["instructblip/beam5", "instructblip/greedy", "llava-1.5/beam5", "llava-1.5/greedy"]
LEXICON = choose("lexicon")


@pytest.fixture(scope="module")
def nltk_analyzer(shared: Path) -> Analyzer:
    nltk = pytest.importorskip("nltk")
    folder = str(shared / "nltk_data")
    if folder not in nltk.data.path:
        nltk.data.path.insert(0, folder)
    return choose("nltk")


@pytest.fixture(scope="module")
def truth(shared: Path) -> dict[int, frozenset[str]]:
    with gzip.open(shared / "coco/chair_ground_truth.json.gz") as file:
        return {int(key): frozenset(names) for key, names in json.load(file).items()}


def scored(shared: Path, name: str, truth: Any, analyzer: Analyzer) -> ScoredArm:
    path = shared / f"captions/{name}.jsonl"
    (captions,) = read_captions(path, image_id_key="image_id", caption_key="caption").values()
    return ScoredArm(name, score(captions, truth, analyzer))


@pytest.mark.parametrize("name", FILES)
def test_nltk_gives_the_reference_metrics(
    shared: Path, truth: Any, nltk_analyzer: Analyzer, name: str
) -> None:
    golden = json.loads((shared / "golden/chair_metrics.json").read_text())[name]

    assert scored(shared, name, truth, nltk_analyzer).values() == pytest.approx(
        golden, rel=0, abs=1e-12
    )


def test_nltk_gives_the_reference_result_of_every_caption(
    shared: Path, truth: Any, nltk_analyzer: Analyzer
) -> None:
    path = shared / "golden/chair_sentences_llava-1.5_greedy.json"
    golden = json.loads(path.read_text())

    rows = [
        sentence_row(caption)
        for caption in scored(shared, "llava-1.5/greedy", truth, nltk_analyzer).captions
    ]

    assert len(rows) == len(golden) == 500
    for row, expected in zip(rows, golden, strict=True):
        assert row["image_id"] == expected["image_id"]
        assert row["mscoco_generated_words"] == expected["generated"]
        assert row["mscoco_hallucinated_words"] == expected["hallucinated"]
        for metric in ("CHAIRs", "CHAIRi", "Recall"):
            assert row["metrics"][metric] == pytest.approx(expected[metric], rel=0, abs=1e-12)


@pytest.mark.parametrize("name", FILES)
def test_the_lexicon_scores_nearly_as_nltk(shared: Path, truth: Any, name: str) -> None:
    golden = json.loads((shared / "golden/chair_metrics.json").read_text())[name]

    values = scored(shared, name, truth, LEXICON).values()

    assert abs(values["CHAIRs"] - golden["CHAIRs"]) <= 0.004
    assert abs(values["CHAIRi"] - golden["CHAIRi"]) <= 0.0015
    assert abs(values["Recall"] - golden["Recall"]) <= 0.005
    assert abs(values["Len"] - golden["Len"]) <= 0.001


@pytest.mark.parametrize("fixture", ["lexicon", "nltk"])
def test_mentions_stand_where_they_say(
    shared: Path, fixture: str, request: pytest.FixtureRequest
) -> None:
    analyzer = LEXICON if fixture == "lexicon" else request.getfixturevalue("nltk_analyzer")
    forms = lexicon(load_vocabulary())
    path = shared / "captions/instructblip/greedy.jsonl"
    (captions,) = read_captions(path, image_id_key="image_id", caption_key="caption").values()

    for caption in captions:
        last = 0
        for mention in analyzer.analyze(caption.text).mentions:
            assert last <= mention.start < mention.stop <= len(caption.text)
            last = mention.stop
            words = caption.text[mention.start : mention.stop].lower().split()
            lemmas = [forms.get(word, word) for word in words]
            assert mention.word.split()[-1] == lemmas[-1] or mention.word in lemmas


def test_quotes_and_odd_letters_do_not_shift_mentions(nltk_analyzer: Analyzer) -> None:
    text = "İ \"A ``dog''\" and 'a cat', they can't see the \"bus\"."

    for analyzer in (nltk_analyzer, LEXICON):
        found = [text[m.start : m.stop] for m in analyzer.analyze(text).mentions]
        assert found == ["dog", "cat", "bus"] if analyzer is LEXICON else found[0] == "dog"
        assert found[-1] == "bus"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man is seated.", ["man", "seat"]),
        ("Two women are skiing, wearing ties.", ["woman", "ski", "tie"]),
        ("Buses, knives and wine glasses.", ["bus", "knife", "wine glass"]),
        ("The dog's bowl isn't a cat's.", ["dog", "bowl", "cat"]),
        ("A dog-friendly bench/chair.", ["bench/chair"][:0]),
        ("Hot dogs; cell phones: (two) laptops!", ["hot dog", "cell phone", "laptop"]),
        ("The end of the bench...and a kite?", ["bench"]),
        ("Geese, mice and sheep", ["goose", "mouse", "sheep"]),
        ("", []),
    ],
)
def test_the_lexicon_reads_inflected_forms(text: str, words: list[str]) -> None:
    found = [mention.word for mention in LEXICON.analyze(text).mentions]

    assert [word for word in found if word != "kite"] == words


def test_the_lexicon_counts_words_as_nltk_does(nltk_analyzer: Analyzer) -> None:
    texts = [
        "It's a dog, isn't it? (Yes!) They'd say so...",
        "At 12:30 there are 1,000 well-kept bikes/cars; the u.s.a flag, too.",
        "“Quoted” -- and o'clock. A girls' team: they've won!",
        "",
    ]

    for text in texts:
        assert LEXICON.analyze(text).num_words == nltk_analyzer.analyze(text).num_words, text


def test_the_table_is_what_the_script_makes() -> None:
    assert LEXICON_FILE.read_text(encoding="utf-8") == table(load_vocabulary())


def test_the_table_says_what_wordnet_says(nltk_analyzer: Analyzer) -> None:
    """Each form is WordNet's noun of the word, or, where that is no word of ours, its verb."""
    from nltk.stem import WordNetLemmatizer

    lemma = WordNetLemmatizer().lemmatize
    words = load_vocabulary().parts()
    forms = lexicon(load_vocabulary())
    inflected = {form for word in words for form in (*plurals(word), *verb_forms(word), word)}

    def read(form: str) -> str:
        noun, verb = lemma(form, "n"), lemma(form, "v")
        return noun if noun in words or verb not in words else verb

    wrong = {form: read(form) for form in inflected | set(forms)
             if forms.get(form, form) != read(form)
             and {forms.get(form, form), read(form)} & words}  # fmt: skip
    assert wrong == {}
    assert len(forms) > 500
    ours = nltk_analyzer._nltk.lemma  # type: ignore[attr-defined]
    others = [
        "geese",
        "better",
        "most",
        "ran",
        "us",
        "glasses",
        "worst",
        "oxen",
        "zzz",
        "",
        "1990s",
    ]
    for form in [*inflected, *others]:
        assert all(ours(form, part) == lemma(form, part) for part in "nvar"), form


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("box", ["boxes"]),
        ("lady", ["ladies"]),
        ("boy", ["boys"]),
        ("policeman", ["policemen", "policemans"]),
        ("calf", ["calves", "calfs"]),
        ("sheep", ["sheeps"]),
    ],
)
def test_plurals(word: str, forms: list[str]) -> None:
    assert plurals(word) == forms


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("seat", ["seats", "seating", "seated"]),
        ("ship", ["ships", "shipping", "shipped"]),
        ("bike", ["bikes", "biking", "biked"]),
        ("ferry", ["ferries", "ferrying", "ferried"]),
        ("bow", ["bows", "bowing", "bowed"]),
        ("monitor", ["monitors", "monitoring", "monitored"]),
        ("canoe", ["canoes", "canoeing", "canoed"]),
    ],
)
def test_verb_forms(word: str, forms: list[str]) -> None:
    assert verb_forms(word) == forms


def test_auto_takes_the_lexicon_where_nltk_has_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [])

    assert choose("auto").name == "lexicon"
    with pytest.raises(
        NltkMissing, match=r"python -m nltk\.downloader punkt_tab averaged_perceptron"
    ):
        choose("nltk")


def test_auto_takes_the_lexicon_where_nltk_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)

    assert choose("auto").name == "lexicon"
    with pytest.raises(NltkMissing, match="pip install nltk"):
        choose("nltk")


def test_auto_takes_nltk_where_it_can(nltk_analyzer: Analyzer) -> None:
    assert choose("auto").name == nltk_analyzer.name == "nltk"


def test_analyzers_can_be_handed_to_another_process(nltk_analyzer: Analyzer) -> None:
    for analyzer in (LEXICON, nltk_analyzer):
        copy = pickle.loads(pickle.dumps(analyzer))
        assert copy.identity == analyzer.identity
        assert copy.analyze("two dogs") == analyzer.analyze("two dogs")


def test_identity_follows_what_the_result_depends_on() -> None:
    fixed = LexiconAnalyzer(load_vocabulary(fixes=True))

    assert fixed.identity != LEXICON.identity
    assert choose("lexicon").identity == LEXICON.identity
    assert [m.object for m in fixed.analyze("Men with vases and iPhones").mentions] == [
        "person", "vase", "cell phone",
    ]  # fmt: skip


def test_the_lexicon_needs_neither_nltk_nor_torch() -> None:
    code = (
        "import sys; from eval.tasks.chair.analyzers import choose;"
        "choose('lexicon').analyze('a dog');"
        "print(sorted({'nltk', 'torch', 'transformers'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=True)  # fmt: skip

    assert done.stdout.strip() == "[]"


def test_long_texts_take_linear_time() -> None:
    """A text that is one long word, or nothing but marks, must not make the pattern explode."""
    rng = random.Random(0)
    mixed = "".join(rng.choice("an't.,:'\" -") for _ in range(200_000))

    for text in ("a" * 200_000, "'" * 200_000, ".," * 100_000, "n't" * 70_000, mixed):
        assert LEXICON.analyze(text).num_words > 0


def test_every_word_of_the_tokenizer_is_found_where_it_stands(nltk_analyzer: Analyzer) -> None:
    """Quotes are the hard part: the tokenizer writes others than the text has."""
    nltk = pytest.importorskip("nltk")
    rng = random.Random(19)
    pieces = ['"', "''", "``", "'", "`", " ", " ", "a", "dog", ".", ",", "\u201c"]
    for _ in range(500):
        text = "".join(rng.choices(pieces, k=rng.randrange(25)))
        words = nltk.word_tokenize(text)

        spans = _spans(text, words)

        said = [text[start:stop] for start, stop in spans]
        assert all(a == b or b in QUOTES for a, b in zip(said, words, strict=True)), text
        assert spans == sorted(spans), text


class Counted(str):
    """A text that counts how many of its characters are looked at."""

    looked = 0

    def find(self, *asked: Any) -> int:
        at = super().find(*asked)
        self.looked += (len(self) if at < 0 else at) - asked[1]
        return at


@pytest.mark.parametrize("mark", QUOTES)
def test_many_quotes_are_found_in_one_pass(mark: str) -> None:
    """There is no other mark: who looks for it reads the rest of the text, for every word."""
    text = Counted(f"{mark} a " * 2000)

    assert len(_spans(text, [mark, "a"] * 2000)) == 4000
    assert text.looked <= len(text)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("index.noun", lambda data: data[:300_000]),
        ("index.noun", lambda data: b""),
        ("index.verb", None),
        ("index.adj", lambda data: data + b"\nwordwithoutspace\n"),
        ("index.adv", lambda data: data.replace(b"quickly", b"quick\xff\xff")),
        ("noun.exc", lambda data: data.replace(b"\n", b"\n\n", 1)),
        ("verb.exc", lambda data: data[:1000]),
    ],
    ids=["cut", "empty", "missing", "no space", "no UTF-8", "empty line", "cut forms"],
)
def test_a_damaged_wordnet_is_refused_in_one_sentence(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, change: Any
) -> None:
    pytest.importorskip("nltk")
    folder = tmp_path / "corpora/wordnet"
    with ZipFile(shared / "nltk_data/corpora/wordnet.zip") as archive:
        for name in archive.namelist():
            if name.endswith(".exc") or "/index." in name:
                data = archive.read(name)
                own = Path(name).name
                if own == file and change is None:
                    continue
                folder.mkdir(parents=True, exist_ok=True)
                (folder / own).write_bytes(change(data) if own == file else data)
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])

    with pytest.raises(EvaluationError, match=r"WordNet is not version 3\.0, or is damaged"):
        wordnet()
