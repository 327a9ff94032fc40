"""Answers behind cached prefixes are those of whole prompts, and the cache keeps to its bytes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers.cache_utils import DynamicLayer

import eah
import models
from models.base import VLM
from models.decoding.base import DecodingMethod
from models.decoding.dola import Dola
from models.decoding.opera import Opera
from models.decoding.pai import Pai
from models.decoding.vcd import Vcd
from models.decoding.yes_no import yes_no_ids
from models.generation import Answer
from models.prefix_cache import (
    CachedPrefix,
    PicturePrefixes,
    PrefixCache,
    PrefixKeys,
    RestLayer,
    attend_to_prefixes,
)
from tests.models.toys import FAMILIES, QUESTIONS, make_folder, pictures

PREFIX_FAMILIES = [family for family in FAMILIES if family != "instructblip"]
PICTURES = [0, 0, 0, 1, 0, 1]
LAYERS: dict[str, tuple[int, ...] | None] = {"baseline": None, "eah": (1,), "two layers": (0, 2)}


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VLM]:
    root = tmp_path_factory.mktemp("toys")
    folders = {family: make_folder(family, root / family) for family in FAMILIES}
    return {
        family: models.load(family, checkpoint=str(folder), device="cpu")
        for family, folder in folders.items()
    }


def enabled(vlm: VLM, layers: tuple[int, ...] | None) -> AbstractContextManager[Any]:
    if layers is None:
        return nullcontext()
    return eah.enabled(vlm.model, eah.EAHConfig.preset("scale-free", layers=layers))


def inputs(vlm: VLM) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features of each question's picture, and of a noised one."""
    pixels = vlm.preprocess(pictures(2))
    return vlm.encode_pixels(pixels)[PICTURES], vlm.encode_pixels(pixels + 0.1)[PICTURES]


@pytest.mark.parametrize("arm", LAYERS)
@pytest.mark.parametrize("family", PREFIX_FAMILIES)
@pytest.mark.parametrize(
    ("method", "beams"), [(None, 1), (None, 3), (Dola(), 1), (Vcd(), 1)], ids=str
)
def test_answers_and_heads_are_those_of_whole_prompts(
    wrapped: dict[str, VLM], family: str, arm: str, method: DecodingMethod | None, beams: int
) -> None:
    vlm, cache = wrapped[family], PrefixCache()
    features, noised = inputs(vlm)
    decoding = models.Decoding(max_new_tokens=10, num_beams=beams)

    with enabled(vlm, LAYERS[arm]) as handle:
        whole = vlm.answer_batch(features, QUESTIONS, decoding, method, noised)
        expected = handle and handle.report()
        for _ in range(2):  # prefixes computed, and found in the cache
            shared = vlm.answer_batch(
                features, QUESTIONS, decoding, method, noised, PicturePrefixes(PICTURES, cache)
            )
            assert shared == whole
            assert (handle and handle.report()) == expected

    assert len(set(whole)) == len(QUESTIONS)
    branches = 2 if isinstance(method, Vcd) else 1
    assert cache.prompts == 2 * branches * len(QUESTIONS)
    if arm == "baseline":
        assert cache.prefills == 2 * branches
    else:
        heads = set(zip(PICTURES, *(row.head[::beams] for row in expected), strict=False))
        assert cache.prefills >= len(heads) > 2, "questions about a picture chose different heads"


@pytest.mark.parametrize("arm", ["baseline", "eah"])
def test_sampled_answers_are_those_of_whole_prompts(wrapped: dict[str, VLM], arm: str) -> None:
    vlm = wrapped["llava-1.5"]
    features, _ = inputs(vlm)
    decoding = models.Decoding(max_new_tokens=10, do_sample=True)

    with enabled(vlm, LAYERS[arm]):
        torch.manual_seed(3)
        whole = vlm.answer_batch(features, QUESTIONS, decoding)
        torch.manual_seed(3)
        shared = vlm.answer_batch(
            features, QUESTIONS, decoding, prefixes=PicturePrefixes(PICTURES, PrefixCache())
        )

    assert shared == whole


def test_a_picture_that_was_not_kept_is_computed_again(wrapped: dict[str, VLM]) -> None:
    vlm, cache = wrapped["shikra"], PrefixCache()
    features, _ = inputs(vlm)
    decoding = models.Decoding(max_new_tokens=2)

    vlm.answer_batch(features, QUESTIONS, decoding, prefixes=PicturePrefixes(PICTURES, cache))
    cache.keep(lambda picture: picture == 1)
    vlm.answer_batch(features, QUESTIONS, decoding, prefixes=PicturePrefixes(PICTURES, cache))

    assert cache.prefills == 2 + 1


@pytest.mark.parametrize("arm", LAYERS)
@pytest.mark.parametrize("method", [None, Vcd()], ids=str)
def test_the_cap_holds_after_every_batch_and_changes_no_answer(
    wrapped: dict[str, VLM], arm: str, method: DecodingMethod | None
) -> None:
    vlm = wrapped["llava-1.5"]
    features, noised = inputs(vlm)
    decoding = models.Decoding(max_new_tokens=6)
    order = [0, 3, 1, 5, 2, 4, 0, 3]  # the pictures in turns

    def ask(cache: PrefixCache) -> list[Answer]:
        said = []
        for at in range(0, len(order), 2):
            rows = order[at : at + 2]
            said += vlm.answer_batch(
                features[rows], [QUESTIONS[row] for row in rows], decoding, method, noised[rows],
                PicturePrefixes([PICTURES[row] for row in rows], cache), yes_no_ids(vlm.tokenizer),
            )  # fmt: skip
            assert cache.nbytes == sum(map(tensor_bytes, cache.kept)) <= cache.max_bytes
        return said

    with enabled(vlm, LAYERS[arm]):
        free = PrefixCache()
        expected = ask(free)
        texts = [answer._replace(p_yes=None) for answer in expected]
        p_yes = [answer.p_yes or 0.0 for answer in expected]
        largest = max(prefix.nbytes for prefix in free.kept)
        prefills = {}
        for max_bytes in (2 * largest, largest, largest - 1, 0):
            capped = PrefixCache(max_bytes)
            said = ask(capped)
            assert [one._replace(p_yes=None) for one in said] == texts
            # Under EAH another question may compute the prefix again, in rounding of its own.
            near = 0 if arm == "baseline" else 1e-6
            assert [one.p_yes or 0.0 for one in said] == pytest.approx(p_yes, abs=near, rel=0)
            assert (capped.prompts, len(capped.kept)) == (free.prompts, max_bytes // largest)
            prefills[max_bytes] = capped.prefills

    assert len(set(texts)) > 4
    assert free.prefills <= prefills[largest] <= prefills[0] > free.prefills


def tensor_bytes(prefix: CachedPrefix) -> int:
    """Return the bytes of all storage that a prefix keeps alive."""
    tensors = [part for parts in (*prefix.layers, *prefix.sums.values()) for part in parts]
    return sum(part.untyped_storage().nbytes() for part in tensors)


def test_a_prefix_has_the_bytes_of_its_picture_alone(wrapped: dict[str, VLM]) -> None:
    vlm, cache = wrapped["llava-1.5"], PrefixCache()
    features, _ = inputs(vlm)
    vlm.answer_batch(
        features, QUESTIONS, models.Decoding(max_new_tokens=1),
        prefixes=PicturePrefixes(PICTURES, cache),
    )  # fmt: skip
    config = vlm.language_model.config.get_text_config()
    length = vlm.prompt_ids("").index(-200) + vlm.num_image_tokens

    floats = 2 * config.num_hidden_layers * length * config.hidden_size  # keys and values
    assert [prefix.nbytes for prefix in cache.kept] == [4 * floats] * 2


def test_a_batch_keeps_its_own_prefixes_until_it_ends(
    wrapped: dict[str, VLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, cache = wrapped["llava-1.5"], PrefixCache(0)
    features, _ = inputs(vlm)
    kept = []
    generate = type(vlm.language_model).generate

    def spied(self: Any, *args: Any, **kwargs: Any) -> Any:
        kept.append([prefix.picture for prefix in cache.kept])
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(type(vlm.language_model), "generate", spied)
    vlm.answer_batch(
        features, QUESTIONS, models.Decoding(max_new_tokens=1),
        prefixes=PicturePrefixes(PICTURES, cache),
    )  # fmt: skip

    assert kept == [[0, 1]]
    assert not cache.kept
    assert (cache.prefills, cache.reused) == (2, 4)


def test_a_batch_that_fails_leaves_no_more_than_the_cap(wrapped: dict[str, VLM]) -> None:
    vlm, cache = wrapped["llava-1.5"], PrefixCache(0)
    features, _ = inputs(vlm)

    class Broken(Dola):
        def generate(self, request: Any) -> torch.Tensor:
            assert cache.kept
            raise MemoryError

    with pytest.raises(MemoryError):
        vlm.answer_batch(
            features, QUESTIONS, models.Decoding(), Broken(),
            prefixes=PicturePrefixes(PICTURES, cache),
        )  # fmt: skip
    assert not cache.kept


def make_prefix(picture: object, heads: tuple[int, ...] = (), size: int = 2) -> CachedPrefix:
    keys, values = torch.zeros(2, 1, 1, size, 5)
    return CachedPrefix(picture, [(keys, values)], heads, {})


def test_the_least_recently_used_prefixes_go_first() -> None:
    prefixes = [make_prefix(name) for name in "abcd"]
    cache = PrefixCache(3 * prefixes[0].nbytes, kept=list(prefixes))

    assert cache.find("a", None) is prefixes[0]
    cache.evict()
    assert [prefix.picture for prefix in cache.kept] == ["c", "d", "a"]
    cache.max_bytes -= 1
    cache.evict({prefixes[2], prefixes[3]})
    assert [prefix.picture for prefix in cache.kept] == ["c", "d"]


def test_a_prefix_is_found_by_picture_and_heads() -> None:
    two = [make_prefix("a", (1,)), make_prefix("a", (2,))]
    cache = PrefixCache(kept=[*two, make_prefix("b", (1,))])

    assert cache.find("a", None) is two[1]
    assert cache.find("a", (1,)) is two[0]
    assert cache.find("a", None) is two[0], "used last"
    assert cache.find("a", (3,)) is None
    assert cache.find("c", None) is None


@pytest.mark.parametrize("method", [Opera(), Pai()], ids=str)
def test_methods_that_run_prompts_their_own_way_run_them_whole(
    wrapped: dict[str, VLM], method: DecodingMethod
) -> None:
    assert not wrapped["llava-1.5"].can_use_cached_prefix(method)


def test_image_tokens_that_depend_on_the_question_are_never_shared(
    wrapped: dict[str, VLM],
) -> None:
    vlm, cache = wrapped["instructblip"], PrefixCache()
    features, _ = inputs(vlm)
    decoding = models.Decoding(max_new_tokens=4)

    shared = vlm.answer_batch(
        features, QUESTIONS, decoding, prefixes=PicturePrefixes(PICTURES, cache)
    )

    assert shared == vlm.answer_batch(features, QUESTIONS, decoding)
    assert (cache.prompts, cache.prefills) == (0, 0)


def test_settings_that_look_at_the_place_in_the_batch_share_nothing(
    wrapped: dict[str, VLM],
) -> None:
    vlm = wrapped["llava-1.5"]
    config = eah.EAHConfig.preset("released-code", layers=(1,), image_span=(3, 7))

    with eah.enabled(vlm.model, config):
        assert not vlm.can_use_cached_prefix()


def test_a_span_of_the_settings_counts_more_than_the_wrappers(wrapped: dict[str, VLM]) -> None:
    vlm = wrapped["llava-1.5"]
    features, _ = inputs(vlm)
    config = eah.EAHConfig.preset("scale-free", image_span=(3, 6))
    decoding = models.Decoding(max_new_tokens=2)

    with eah.enabled(vlm.model, config) as handle:
        for method in (None, Dola()):
            vlm.answer_batch(features[:1], QUESTIONS[:1], decoding, method)
            assert handle.report()[0].image_tokens == (3,)


LENGTH, REST, HEADS, SIZE = 7, 4, 6, 8
CASES = {
    "one each": [0, 1, 2],
    "equal groups": [0, 0, 1, 1],
    "unequal and mixed": [0, 1, 0, 2, 1, 0, 0],
    "all the same": [0, 0, 0],
}


@pytest.mark.parametrize(
    ("queries", "mask_kind"),
    [(1, "none"), (1, "bool"), (1, "additive"), (REST, "bool"), (REST, "additive")],
)
@pytest.mark.parametrize("kv_heads", [6, 2])
@pytest.mark.parametrize("rows", CASES.values(), ids=CASES)
def test_attention_to_prefixes_is_plain_attention_to_own_copies(
    queries: int, kv_heads: int, rows: list[int], mask_kind: str
) -> None:
    query = torch.randn(len(rows), HEADS, queries, SIZE)
    rest = torch.randn(2, len(rows), kv_heads, REST, SIZE)
    first = torch.randn(2, max(rows) + 1, kv_heads, LENGTH, SIZE)
    keys, values = torch.cat([first[:, rows], rest], dim=3)
    seen = torch.ones(queries, LENGTH + REST, dtype=torch.bool).tril(LENGTH + REST - queries)
    seen = seen.expand(len(rows), 1, -1, -1).clone()
    if mask_kind != "none":
        seen[0, :, :, LENGTH : LENGTH + 2] = False  # padding behind the prefix
        if queries > 1:  # and a padding row still sees the prefix
            assert seen[0, 0, 0].sum() == LENGTH
    additive = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    parts = [(key[None], value[None]) for key, value in zip(*first, strict=True)]
    cached = [CachedPrefix(None, [part] * 4, (), {}) for part in parts]
    prefixes = PrefixKeys()
    prefixes.assign([cached[row] for row in rows], [3], torch.device("cpu"))
    mask = {"none": None, "bool": seen, "additive": additive}[mask_kind]
    output = attend_to_prefixes(prefixes, 3, query, *rest, mask, SIZE**-0.5)

    expected = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen, enable_gqa=True)
    torch.testing.assert_close(output, expected.transpose(1, 2))


def test_the_rest_grows_as_transformers_own_cache_and_counts_the_prefix() -> None:
    layer, plain = RestLayer(LENGTH, PrefixKeys()), DynamicLayer()
    assert layer.get_seq_length() == LENGTH

    for new in (REST, 1, 1):
        keys, values = torch.randn(2, 3, 2, new, SIZE)
        found, expected = layer.update(keys, values), plain.update(keys, values)
        assert all(map(torch.equal, found, expected))
        layer.reorder_cache(torch.tensor([2, 2, 0]))
        plain.reorder_cache(torch.tensor([2, 2, 0]))

    assert torch.equal(layer.keys, plain.keys)
    assert layer.get_seq_length() == LENGTH + REST + 2
