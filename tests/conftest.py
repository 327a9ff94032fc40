"""What all tests share: seed, cache of file hashes, reference data, the gpu marker."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests import inputs


def pytest_configure(config: pytest.Config) -> None:
    # Shells let their background jobs ignore Ctrl-C; the commands that tests start would, too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    inputs.register(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def cache_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of tests, and of the programs that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EAH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of reference data next to the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no reference data: the folder shared/ is not next to the repository")
    return folder
