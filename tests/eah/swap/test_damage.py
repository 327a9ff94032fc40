"""What was left, lost or damaged."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from eah import swap
from tests.eah.swap.installs import error_of, run, tree

REPLACED = "transformers/models/llama/modeling_llama_original.py.replaced"
LEFT = b"of = 'an older transformers'\n"


def test_an_original_left_by_an_older_transformers_is_not_put_back(
    site: Path, place: swap.Place
) -> None:
    before = tree(site)
    swap.install(place)
    # pip replaces the file that it knows, and leaves the ones that it doesn't.
    place.original.write_bytes(LEFT)
    digest = hashlib.sha256(place.original.read_bytes()).hexdigest()
    place.checksum.write_text(f"{digest}  {place.original.name}\n")
    place.file.write_bytes(before["transformers/models/llama/modeling_llama.py"])
    assert swap.status(place).kind == "original"

    swap.restore(place)

    assert tree(site) == {**before, REPLACED: LEFT}


def test_an_original_left_is_replaced_by_a_new_install(site: Path, place: swap.Place) -> None:
    before = tree(site)
    place.original.write_bytes(LEFT)

    swap.install(place)

    assert place.original.read_bytes() == before["transformers/models/llama/modeling_llama.py"]
    swap.restore(place)
    assert tree(site) == {**before, REPLACED: LEFT}


@pytest.mark.parametrize("kept", [["original"], ["checksum"], ["original", "checksum"]])
def test_restore_removes_what_an_interrupted_one_left(
    site: Path, place: swap.Place, kept: list[str]
) -> None:
    before = tree(site)
    (place.file.parent / ".modeling_llama_original.py.123.eah").touch()  # of a killed process
    for name in kept:
        shutil.copy(place.file, getattr(place, name))
    assert swap.status(place).kind == "original"

    swap.restore(place)

    assert tree(site) == before


@pytest.mark.parametrize("action", ["restore", "install"])
@pytest.mark.parametrize("damage", ["changed", "gone", "both damaged"])
def test_a_damaged_original_is_refused(
    site: Path, place: swap.Place, action: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    swap.install(place)
    if damage == "gone":
        place.original.unlink()
    else:
        place.original.write_bytes(place.original.read_bytes()[:-1])
    if damage == "both damaged":
        place.checksum.write_bytes(b"\xff")
    before = tree(site)

    assert run(site, action) == 2

    output = capsys.readouterr().err
    assert "is missing" in output if damage == "gone" else "its checksum differs" in output
    assert "-m pip install --force-reinstall --no-deps transformers==4.99.0" in output
    assert tree(site) == before


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"several words"])
def test_a_damaged_checksum_does_not_matter_to_transformers_own(
    site: Path, place: swap.Place, damaged: bytes
) -> None:
    before = tree(site)
    swap.install(place)
    place.checksum.write_bytes(damaged)

    assert run(site, "restore") == 0

    assert tree(site) == before


def test_status_of_another_family_lives_with_a_damaged_original(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = swap.find(family="qwen2", site_packages=site)
    swap.install(place)
    for damage in (b"\xff def (", None):
        place.original.unlink() if damage is None else place.original.write_bytes(damage)

        assert run(site, "status", "--model", "qwen2") == 1
        output = capsys.readouterr().out
        assert "(not this version's file)" in output
        missing = "wrong: the original, modeling_qwen2_original.py, is missing; "
        assert (missing in output) == (damage is None)


def test_a_missing_file_is_put_back_by_restore(
    site: Path, place: swap.Place, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(site)
    swap.install(place)
    place.file.unlink()

    assert run(site, "install") == 2
    assert f"is missing; run: python -m eah.swap restore --file {place.file}" in error_of(capsys)
    assert run(site, "restore") == 0
    assert tree(site) == before
    place.file.unlink()
    assert run(site, "restore") == 2
    assert "--no-deps transformers==4.99.0" in error_of(capsys)
