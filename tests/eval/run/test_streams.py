"""Streams that are closed or full: results are saved, and nothing is a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.eval.forks import CLOSED, FULL, NOBODY, Ended, Forks, forks
from tests.eval.small_runs import always_yes, right, write_run

# One of each kind of parser.
HELP = ("eval.chair", "eval.pope_eval", "eval.runs", "eah.__main__", "scripts.bench.judge")
COMMANDS = {
    **{f"{module} help": (module, ["--help"]) for module in HELP},
    "list": ("eval.runs", ["list", "{folder}"]),
    "show": ("eval.runs", ["show", "{run}"]),
    "pope mistake": ("eval.pope_eval", ["--nothing"]),
    "task mistake": ("eval.evaluate", ["--task", "nothing"]),
    "swap status": ("eah.swap", ["status", "--site-packages", "{folder}/site"]),
    "swap check": ("eah.swap", ["check", "eah/swap/reach"]),
    "build": ("eah.swap", ["build", "--check"]),
    "scenes": ("scripts.scenes.make", ["--count", "1", "--output", "{folder}/scenes"]),
    "lexicon": ("scripts.data.make_lexicon", ["--check"]),
}
REDIRECTED = (
    {1: CLOSED, 2: CLOSED}, {1: FULL}, {2: FULL}, {1: FULL, 2: FULL}, {1: NOBODY},
    {1: NOBODY, 2: NOBODY},
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    write_run(folder / "runs/pope/tiny-llava/one-11111111", {"baseline": right, "eah": always_yes})
    package = folder / "site/transformers"
    (package / "models/llama").mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "4.99.0"\n')
    (package / "models/llama/modeling_llama.py").write_text("class LlamaAttention: ...\n")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forks(tmp_path_factory.mktemp("printed"), warm=False) as server:
        yield server


def run(server: Forks, name: str, folder: Path, streams: dict[int, str]) -> Ended:
    module, arguments = COMMANDS[name]
    of_run = folder / "runs/pope/tiny-llava/one-11111111"
    filled = [one.format(folder=folder, run=of_run) for one in arguments]
    return server.wait(server.start(filled, module=module, streams=streams))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_stream_that_takes_nothing_is_no_traceback(
    server: Forks, folder: Path, name: str
) -> None:
    usual = run(server, name, folder, {})
    for streams in REDIRECTED:
        ended = run(server, name, folder, streams)

        said = ended.out + ended.err
        assert "Traceback" not in said, streams
        assert "ignored" not in said, streams
        lost = (usual.out and streams.get(1)) or (usual.err and streams.get(2))
        expected = {usual.status}
        if lost == FULL:
            expected = {2}
        elif lost == NOBODY:
            expected = {141, 2}
        if usual.status:
            expected = {*expected, usual.status}
        assert ended.status in expected, (streams, said)


def test_what_is_full_is_said(server: Forks, folder: Path) -> None:
    said = run(server, "show", folder, {1: FULL}).err

    assert said.startswith("runs: error: output can't be written: No space left on device; ")
    assert said.count("\n") == 1


def test_a_result_is_saved_before_it_is_printed(server: Forks, folder: Path) -> None:
    files = []
    for number, where in enumerate((None, FULL, CLOSED, NOBODY)):
        path = folder / f"result{number}.json"
        streams = {} if where is None else {1: where}
        arguments = ["show", str(folder / "runs/pope/tiny-llava/one-11111111"), "--json", str(path)]
        server.wait(server.start(arguments, module="eval.runs", streams=streams))
        files.append(path.read_bytes())

    assert len(set(files)) == 1
