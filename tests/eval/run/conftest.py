"""One server that forks processes, for all tests of runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.eval.forks import Forks, forks


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forks(tmp_path_factory.mktemp("printed")) as server:
        yield server
