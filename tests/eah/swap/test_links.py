"""Installs whose files are links, as uv's and conda's can be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eah import swap
from tests.eah.swap.installs import ours, run, tree

LLAMA = Path("transformers/models/llama/modeling_llama.py")


@pytest.fixture
def cache(site: Path, tmp_path: Path) -> Path:
    """Move llama's file to a cache, with a link in its place; return where it is."""
    cache = tmp_path / "cache" / "1f.py"
    cache.parent.mkdir()
    (site / LLAMA).rename(cache)
    (site / LLAMA).symlink_to(cache)
    return cache


def test_a_linked_file_is_replaced_and_its_cache_is_not(site: Path, cache: Path) -> None:
    original = cache.read_bytes()

    assert run(site, "install") == 0

    assert cache.read_bytes() == original
    assert not (site / LLAMA).is_symlink()
    assert (site / LLAMA).read_bytes() == ours()
    kept = (site / LLAMA).with_name("modeling_llama_original.py")
    assert kept.readlink() == cache
    assert run(site, "status") == 0
    assert run(site, "restore") == 0
    assert (site / LLAMA).readlink() == cache
    assert cache.read_bytes() == original


def test_a_relative_link_is_the_same_link_again(site: Path, cache: Path) -> None:
    link = os.path.relpath(cache, (site / LLAMA).parent)
    (site / LLAMA).unlink()
    (site / LLAMA).symlink_to(link)

    assert run(site, "install") == 0
    assert run(site, "status") == 0
    assert run(site, "restore") == 0

    assert os.readlink(site / LLAMA) == link
    assert run(site, "status") == 0


def test_a_link_whose_cache_is_gone_is_a_lost_original(
    site: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(site, "install") == 0
    cache.unlink()

    assert run(site, "status") == 1

    assert "modeling_llama_original.py, is missing" in capsys.readouterr().out


def test_a_link_to_nothing_is_removed_after_a_reinstall(site: Path, cache: Path) -> None:
    original = cache.read_bytes()
    assert run(site, "install") == 0
    cache.unlink()
    (site / LLAMA).write_bytes(original)  # by pip
    assert run(site, "status") == 1

    assert run(site, "restore") == 0

    assert run(site, "status") == 0
    assert not os.path.lexists((site / LLAMA).with_name("modeling_llama_original.py"))


def test_a_link_to_our_file_is_ours(site: Path, place: swap.Place) -> None:
    """Swapped by hand, with a link to a clone of EAH."""
    original = place.file.read_bytes()
    place.file.rename(place.original)
    place.file.symlink_to(swap.SOURCE)
    assert run(site, "status") == 0

    assert run(site, "restore") == 0

    assert place.file.read_bytes() == original
    assert swap.SOURCE.read_bytes() == ours()


@pytest.mark.parametrize(
    "linked", ["transformers", "transformers/models", "transformers/models/llama"]
)
def test_a_linked_folder_is_named(
    site: Path, tmp_path: Path, linked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(site)
    shared = tmp_path / "shared"
    (site / linked).rename(shared)
    (site / linked).symlink_to(shared)

    assert run(site, "install") == 0

    folder = (site / LLAMA).parent.resolve()
    assert shared in (folder, *folder.parents)
    assert f"all links to {folder} are affected" in capsys.readouterr().out
    assert run(site, "restore") == 0
    (site / linked).unlink()
    shared.rename(site / linked)
    assert tree(site) == before


def test_the_records_beside_a_linked_package_are_found(site: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "transformers").symlink_to(site / "transformers")

    place = swap.find(family="llama", site_packages=other)

    assert place.record == "records"
    assert swap.status(place).verified
