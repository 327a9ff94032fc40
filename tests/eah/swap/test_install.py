"""Install, status and restore of a sound install."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest

from eah import modeling_llama_eah as drop_in
from eah import swap
from tests.eah.swap.installs import error_of, ours, run, tree


def test_install_puts_ours_in_the_place_and_keeps_the_original_with_its_checksum(
    place: swap.Place,
) -> None:
    before = place.file.read_bytes()

    swap.install(place)

    assert place.file.read_bytes() == ours()
    assert place.original.name == "modeling_llama_original.py"
    assert place.original.read_bytes() == before
    digest = hashlib.sha256(before).hexdigest()
    assert place.checksum.read_text() == (
        f"{digest}  modeling_llama_original.py\n# beside transformers 4.99.0, recorded {digest}\n"
    )
    check = ["sha256sum", "--check", place.checksum.name]
    assert subprocess.run(check, cwd=place.file.parent, capture_output=True).returncode == 0


def test_restore_brings_every_byte_back_and_leaves_nothing(site: Path, place: swap.Place) -> None:
    before = tree(site)
    swap.install(place)
    assert tree(site) != before

    swap.restore(place)

    assert tree(site) == before


def test_what_is_there_already_is_not_written_again(
    site: Path, place: swap.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap.install(place)
    before, times = tree(site), [path.stat().st_mtime_ns for path in sorted(site.rglob("*.*"))]

    report = swap.install(place)

    assert "already" in report
    assert tree(site) == before
    assert [path.stat().st_mtime_ns for path in sorted(site.rglob("*.*"))] == times


def test_restoring_twice_and_restoring_nothing_is_fine(site: Path, place: swap.Place) -> None:
    before = tree(site)
    assert "nothing to restore" in swap.restore(place)
    swap.install(place)
    swap.restore(place)

    assert "nothing to restore" in swap.restore(place)

    assert tree(site) == before


def test_permissions_stay_as_they_were(place: swap.Place) -> None:
    place.file.chmod(0o664)
    mask = os.umask(0o077)
    try:
        swap.install(place)
        assert {stat.S_IMODE(path.stat().st_mode)
                for path in (place.file, place.original, place.checksum)} == {0o664}  # fmt: skip
        swap.restore(place)
    finally:
        os.umask(mask)

    assert stat.S_IMODE(place.file.stat().st_mode) == 0o664


def test_a_hard_link_to_the_original_keeps_it(place: swap.Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache.py"  # as uv and conda have
    cache.hardlink_to(place.file)
    before = cache.read_bytes()

    swap.install(place)

    assert cache.read_bytes() == before


def test_no_compiled_file_outlives_its_source(place: swap.Place) -> None:
    compiled = place.file.parent / "__pycache__"
    compiled.mkdir()
    names = ["modeling_llama.cpython-311.pyc", "modeling_llama.cpython-311.opt-1.pyc"]
    kept = compiled / "configuration_llama.cpython-311.pyc"
    kept.touch()
    for change in (swap.install, swap.restore):
        for name in [*names, "modeling_llama_original.cpython-311.pyc"]:
            (compiled / name).touch()

        change(place)

        assert list(compiled.iterdir()) == [kept]


def test_a_newer_version_of_ours_keeps_the_original(site: Path, place: swap.Place) -> None:
    before = tree(site)
    original = place.file.read_bytes()
    swap.install(place)
    place.file.write_bytes(
        ours().replace(
            f'VERSION: Final = "{drop_in.VERSION}"'.encode(), b'VERSION: Final = "0.0.1"'
        )
    )
    old = swap.status(place)
    assert (old.kind, old.version, old.current) == ("ours", "0.0.1", False)
    assert "EAH 0.0.1 (not this version's file)" in swap.describe(place)

    swap.install(place)

    assert place.file.read_bytes() == ours()
    assert place.original.read_bytes() == original
    swap.restore(place)
    assert tree(site) == before


def test_status_says_what_is_there(
    site: Path, place: swap.Place, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(code: int = 0) -> str:
        assert run(site, "status") == code
        return capsys.readouterr().out

    assert said() == f"transformers 4.99.0: {place.file} is transformers' own\n"
    swap.install(place)
    settings = drop_in.settings_from_environment({})
    assert said() == (
        f"transformers 4.99.0: {place.file} is EAH {drop_in.VERSION}\n"
        "every llama-based model that runs on this transformers is affected\n"
        f"a later run started with this environment would use: {settings}\n"
    )
    place.file.write_text("x = 1\n")
    assert " is neither transformers' own nor EAH's\nwrong: it was edited, " in said(1)
    place.file.unlink()
    assert " is missing\nwrong: code that imports modeling_llama.py fails; run: " in said(1)


def test_status_shows_the_settings_of_the_environment(
    site: Path, place: swap.Place, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    swap.install(place)
    monkeypatch.setenv("EAH_LAYERS", "1,3")

    assert run(site, "status") == 0

    assert "would use: layers 1, 3; " in capsys.readouterr().out


@pytest.mark.parametrize("action", ["install", "status"])
def test_a_bad_variable_is_one_sentence_and_changes_nothing(
    site: Path, action: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(site)
    monkeypatch.setenv("EAH_LAYERS", "second")

    assert run(site, action) == 2

    assert "EAH_LAYERS='second' can't be used" in error_of(capsys)
    assert tree(site) == before


def test_a_bad_variable_does_not_keep_one_from_restoring(
    site: Path, place: swap.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(site)
    swap.install(place)
    monkeypatch.setenv("EAH_LAYERS", "second")

    assert run(site, "restore") == 0

    assert tree(site) == before
