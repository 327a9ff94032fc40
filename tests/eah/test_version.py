"""Which versions of transformers `enable` accepts."""

from __future__ import annotations

import pytest

import eah
from eah import patch
from tests.eah import tiny


@pytest.mark.parametrize("version", ["4.56.2", "4.9.0", "3.5.1", "6.0.0", "10.1.0"])
def test_a_version_that_was_not_tried_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    model = tiny.tiny_llama()
    monkeypatch.setattr(patch.transformers, "__version__", version)

    with pytest.raises(eah.UnsupportedVersionError) as error:
        eah.enable(model)

    assert f"transformers {version} is installed" in str(error.value)
    assert "pip install 'transformers>=4.57,<6'" in str(error.value)
    assert not eah.is_enabled(model)


@pytest.mark.parametrize("version", ["4.57.0", "4.57.6", "4.100.0", "5.0.0", "5.23.0.dev0"])
def test_a_version_between_oldest_and_newest_is_accepted(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    model = tiny.tiny_llama()
    monkeypatch.setattr(patch.transformers, "__version__", version)

    eah.enable(model)

    assert eah.is_enabled(model)
