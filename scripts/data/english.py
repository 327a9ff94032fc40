"""English inflection: the plural of a noun, the forms of a verb. Enough for CHAIR's words."""

from __future__ import annotations

from typing import Final

VOWELS: Final = "aeiou"

IRREGULAR_PLURALS: Final = {
    "buffalo": ["buffaloes"],
    "bus": ["busses"],
    "calf": ["calves"],
    "child": ["children"],
    "flamingo": ["flamingoes"],
    "goose": ["geese"],
    "grandchild": ["grandchildren"],
    "knife": ["knives"],
    "mouse": ["mice"],
    "ox": ["oxen"],
    "pocketknife": ["pocketknives"],
    "thief": ["thieves"],
}
IRREGULAR_VERBS: Final = {
    "bear": ["bears", "bearing", "born", "borne"],
    "knife": ["knifes", "knifing", "knifed"],
    "light": ["lights", "lighting", "lit", "lighted"],
    "sink": ["sinks", "sinking", "sank", "sunk", "sunken"],
    "ski": ["skis", "skiing", "skied"],
    "taxi": ["taxis", "taxies", "taxiing", "taxying", "taxied"],
    "tie": ["ties", "tying", "tied"],
}
# Two spellings are in use.
MORE_VERB_FORMS: Final = {"signal": ["signalling", "signalled"]}


def plurals(noun: str) -> list[str]:
    """Return the plurals of a noun; an irregular one and the regular one, a common mistake."""
    irregular = IRREGULAR_PLURALS.get(noun, [])
    if noun.endswith("man"):
        irregular = [noun.removesuffix("man") + "men"]
    return list(dict.fromkeys([*irregular, _with_s(noun)]))


def verb_forms(verb: str) -> list[str]:
    """Return the inflected forms of a verb: -s, -ing, -ed."""
    if verb in IRREGULAR_VERBS:
        return IRREGULAR_VERBS[verb]
    if verb.endswith("e") and not verb.endswith("oe"):
        forms = [verb + "s", verb[:-1] + "ing", verb + "d"]
    elif verb.endswith("y") and verb[-2] not in VOWELS:
        forms = [verb[:-1] + "ies", verb + "ing", verb[:-1] + "ied"]
    else:
        stem = verb + verb[-1] if _doubles(verb) else verb
        forms = [_with_s(verb), stem + "ing", stem.removesuffix("e") + "ed"]
    return forms + MORE_VERB_FORMS.get(verb, [])


def _with_s(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in VOWELS:
        return word[:-1] + "ies"
    return word + "s"


def _doubles(verb: str) -> bool:
    """Tell whether the last consonant is doubled: one syllable, one vowel before it."""
    syllables = sum(
        letter in VOWELS and (at == 0 or verb[at - 1] not in VOWELS)
        for at, letter in enumerate(verb)
    )
    return (
        syllables == 1
        and verb[-1] not in VOWELS + "wxys"
        and verb[-2] in VOWELS
        and (len(verb) < 3 or verb[-3] not in VOWELS)
    )
