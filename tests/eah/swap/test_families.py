"""The files of other families."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eah import modeling_llama_eah as drop_in
from eah import swap
from tests.eah.swap.installs import DECODER, error_of, ours, run, tree, write_family

VISION = "class ClipTextModel(nn.Module):\n    self.layers = 1\n\nclass ClipModel:\n    pass\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (DECODER.format(name="Clip") + "\n" + VISION, "defines ClipModel, ClipTextModel"),
        ("x = 1\n", "defines no model"),
        (DECODER.format(name="Opt").replace("self.layers", "self.decoder"), "defines OptModel"),
        (DECODER.format(name="Neo").replace("self_attn", "attention"), "defines NeoModel"),
        (DECODER.format(name="Flash").replace("softmax", "kernel"), "neither softmax nor scaled"),
    ],
    ids=["two models", "none", "encoder and decoder", "no self_attn", "no map"],
)
def test_a_family_that_cant_be_shared_is_refused(
    site: Path, content: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_family(site, "strange", content)
    before = tree(site)

    assert run(site, "install", "--model", "strange", "--force") == 2

    assert said in error_of(capsys)
    assert tree(site) == before
    assert run(site, "status", "--model", "strange") == 0


@pytest.mark.parametrize("call", ["scaled_dot_product_attention(", "ALL_ATTENTION_FUNCTIONS["])
def test_a_family_with_another_seam_is_accepted(site: Path, call: str) -> None:
    write_family(site, "new", DECODER.format(name="New").replace("softmax(", call))

    assert run(site, "install", "--model", "new") == 0


def test_another_familys_file_exports_its_own_names(site: Path) -> None:
    place = swap.find(family="qwen2", site_packages=site)

    swap.install(place)

    text = place.file.read_text()
    names = ["Qwen2ForCausalLM", "Qwen2Model", "Qwen2PreTrainedModel"]
    assert text == ours().decode().replace(drop_in.LAZY_EXPORTS, swap.lazy_exports(names))
    assert set(re.findall(r"^class (\w+)\($", text, re.MULTILINE)) == {*names, "SharingAttention"}
    assert swap.status(place).current
    assert swap.install(place).endswith("already")


def test_a_family_without_a_list_of_names_needs_none(site: Path) -> None:
    old = DECODER.format(name="Old").split("__all__")[0]
    write_family(site, "old", old)

    assert run(site, "install", "--model", "old") == 0

    assert swap.status(swap.find(family="old", site_packages=site)).current


def test_two_families_are_swapped_and_restored_each_on_its_own(
    site: Path, place: swap.Place
) -> None:
    before = tree(site)
    mistral = swap.find(family="mistral", site_packages=site)
    swap.install(place)
    swap.install(mistral)
    assert (swap.status(place).current, swap.status(mistral).current) == (True, True)

    swap.restore(place)

    assert (swap.status(place).kind, swap.status(mistral).kind) == ("original", "ours")
    swap.restore(mistral)
    assert tree(site) == before
