"""What is kept and may exist nowhere else is moved aside, and nothing is overwritten by that."""

from __future__ import annotations

from pathlib import Path

import pytest

from eah import swap
from tests.eah.swap.installs import run

LLAMA = "transformers/models/llama/modeling_llama.py"


def force_an_edit(site: Path, mark: bytes) -> bytes:
    """Install over an edited file, put the original back as pip does, and return the edit."""
    file = site / LLAMA
    original = file.read_bytes()
    edited = original + mark
    file.write_bytes(edited)
    assert run(site, "install", "--force") == 0
    file.write_bytes(original)
    return edited


@pytest.mark.parametrize("action", ["install", "restore"])
def test_files_that_were_moved_aside_stay(
    site: Path, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = site / LLAMA
    original, edits = file.read_bytes(), []
    for number in range(3):
        file.write_bytes(original)
        edits.append(force_an_edit(site, b"# edit %d" % number))
        capsys.readouterr()

        assert run(site, action) == 0

        name = "modeling_llama_original.py.replaced" + ("", ".2", ".3")[number]
        assert f"what was kept before is {file.with_name(name)}\n" in capsys.readouterr().err
        assert file.with_name(name).read_bytes() == edits[number]
        assert run(site, "restore") == 0
        assert file.read_bytes() == original

    kept = sorted(file.parent.glob("*.replaced*"))
    assert [path.read_bytes() for path in kept] == edits


def test_what_is_wrong_is_of_the_status_not_of_a_later_look(place: swap.Place) -> None:
    """As beside a running install, which changes the files between the two."""
    original = place.file.read_bytes()
    swap.install(place)
    installed = swap.status(place)
    place.file.write_bytes(original)
    found = swap.status(place)
    place.original.unlink()
    place.checksum.unlink()

    assert "modeling_llama_original.py is left over" in swap.problems(place, found)[0]
    place.original.write_bytes(original)
    assert swap.problems(place, installed) == []
    place.file.unlink()
    place.original.unlink()
    clean = swap.Status("original", original, verified=True)
    place.original.write_bytes(original)
    assert swap.problems(place, clean) == []
