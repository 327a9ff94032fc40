"""Write `configs/chair_lexicon.tsv`: the inflected forms of CHAIR's words.

    python scripts/data/make_lexicon.py            # writes the table
    python scripts/data/make_lexicon.py --check    # only checks whether it is up to date

A form that is a separate word, or the plural of one, is read as that; only other forms are
read as a verb's. The table follows from `configs/chair_objects.yaml` and the lists below.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from eval.command import finish
from eval.files.writing import write_atomically
from eval.run.flag_parser import FlagParser
from eval.tasks.chair.analyzers import HEADER, LEXICON_FILE
from eval.tasks.chair.vocabulary import Vocabulary, load_vocabulary
from scripts.data.english import plurals, verb_forms

# Words without a plural, as the published scores see it: no nouns, or words that WordNet 3.0 does
# not know. `fixes` of chair_objects.yaml lists the plurals that are worth having. "Men" is a noun
# with its own entry in WordNet.
NO_PLURAL = {
    "biker", "bluejay", "brindle", "children", "coworker", "firetruck", "glas", "hairdryer", "hot",
    "knive", "lenovo", "longboard", "macbook", "man", "netbook", "paddleboat", "pitbull", "potted",
    "riverboat", "sailboard", "shortboard", "skimboard", "skis", "smartphone", "solider", "sports",
    "stovetop", "teddybear", "televison",
}  # fmt: skip
# Plurals that WordNet's lemmatizer takes for those of a shorter word.
MISREAD = {"sports": "sport", "vases": "vas"}
# Words that are verbs as well.
VERBS = {
    "air", "automobile", "baby", "backpack", "ball", "barge", "bat", "bear", "bed", "bench",
    "bicycle", "bike", "bird", "boat", "book", "bottle", "bow", "bowl", "buffalo", "bull",
    "bulldog", "bus", "cake", "canoe", "case", "cat", "chair", "clock", "cocker", "cop", "couch",
    "cow", "crow", "cub", "cup", "cycle", "doctor", "dog", "duck", "falcon", "father", "ferry",
    "fire", "foal", "fork", "fowl", "glass", "goose", "groom", "gull", "guy", "home", "horse",
    "hound", "jet", "kayak", "kid", "kitten", "knife", "lamb", "light", "man", "meter", "microwave",
    "monitor", "mother", "motor", "motorbike", "motorboat", "motorcycle", "mouse", "officer",
    "parrot", "people", "phone", "plant", "pup", "purse", "quail", "racket", "ram", "raven",
    "sandwich", "seaplane", "seat", "ship", "sign", "signal", "sink", "skateboard", "ski",
    "snowboard", "soldier", "spoon", "stool", "stop", "sub", "suit", "surfboard", "table", "taxi",
    "telephone", "tie", "top", "track", "traffic", "train", "truck", "unicycle", "yacht",
}  # fmt: skip


def lexicon(vocabulary: Vocabulary) -> dict[str, str]:
    """Return the word of every inflected form."""
    words = sorted(vocabulary.parts())
    nouns = {
        form: word for word in words if word not in NO_PLURAL
        for form in plurals(word)
    }  # fmt: skip
    nouns |= MISREAD
    verbs = {form: word for word in words if word in VERBS for form in verb_forms(word)}
    return {
        form: word for form, word in sorted({**verbs, **nouns}.items())
        if form not in words or form in nouns
    }  # fmt: skip


def table(vocabulary: Vocabulary) -> str:
    """Return the text of the table; parts of phrases have no object."""
    lines = [
        f"{form}\t{word}\t{vocabulary.object_of.get(word, '-')}"
        for form, word in lexicon(vocabulary).items()
    ]
    return "\n".join([HEADER, *lines]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    flags = FlagParser(__doc__ or "")
    flags.flag("--check", action="store_true", help="compare only; write nothing")
    return finish(
        "make_lexicon",
        lambda: run(**flags.parse(arguments)),
        interrupted="the table is as it was",
    )


def run(*, check: bool = False) -> int:
    """Write or check the table, and return the exit status."""
    made = table(load_vocabulary())
    if check:
        return int(made != LEXICON_FILE.read_text(encoding="utf-8"))
    write_atomically(LEXICON_FILE, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
