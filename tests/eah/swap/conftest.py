"""Fixtures of the swap's tests: a small install, without settings and without a package index."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from eah import modeling_llama_eah as drop_in
from eah import swap
from eah.swap import exchange, repair
from tests.eah.swap.installs import DECODER, FAMILIES, VERSION, ours, write_family

_download = repair._download


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of whoever runs the tests."""
    for names in drop_in.VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find nothing, at once."""
    monkeypatch.setattr(repair, "_download", lambda command, folder: "no index here")


@pytest.fixture(autouse=True)
def no_real_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no mistake of a test change the transformers that the tests run with."""
    lock = exchange.hold_lock

    def hold_lock(place: swap.Place) -> AbstractContextManager[None]:
        assert Path(sys.prefix).resolve() not in place.file.resolve().parents
        return lock(place)

    monkeypatch.setattr(exchange, "hold_lock", hold_lock)


@pytest.fixture
def pip(no_pip: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run pip as users do."""
    monkeypatch.setattr(repair, "_download", _download)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a site-packages folder as pip leaves it."""
    site = tmp_path / "site-packages"
    (site / "transformers").mkdir(parents=True)
    (site / f"transformers-{VERSION}.dist-info").mkdir()
    (site / f"transformers-{VERSION}.dist-info" / "RECORD").write_text(
        f"transformers-{VERSION}.dist-info/RECORD,,\n../../../bin/transformers,sha256=abc,12\n"
    )
    (site / "transformers" / "__init__.py").write_text(f'__version__ = "{VERSION}"\n')
    for family, name in FAMILIES.items():
        write_family(site, family, DECODER.format(name=name))
    return site


@pytest.fixture
def place(site: Path) -> swap.Place:
    """Return the place of llama's file in it."""
    return swap.find(family="llama", site_packages=site)


@pytest.fixture
def overwritten(site: Path) -> bytes:
    """Overwrite the original, and return it."""
    file = site / "transformers/models/llama/modeling_llama.py"
    original = file.read_bytes()
    file.write_bytes(ours())
    return original
