"""The commands with every model of the paper, at toy size: one command line for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval import chair_eval, pope_eval
from eval.run.recorded import read_run
from scripts.scenes.make import write_scenes
from tests.models.toys import FAMILIES, IMAGE_TOKENS, make_folder

COUNT = 3


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=COUNT, seed=2014)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    return request.param, make_folder(request.param, tmp_path_factory.mktemp("toy") / "model")


def flags(model: tuple[str, Path], scenes: Path, runs: Path) -> list[str]:
    name, checkpoint = model
    return [
        "--model", name, "--checkpoint", str(checkpoint), "--gpu-id", "-1",
        "--data-path", str(scenes / "val2014"), "--max-new-tokens", "4", "--output-dir", str(runs),
    ]  # fmt: skip


@pytest.mark.parametrize("protocol", ["opera", "official"])
def test_pope_runs(model: tuple[str, Path], scenes: Path, tmp_path: Path, protocol: str) -> None:
    build = ["--build-from", str(scenes / "annotations/instances_val2014.json")]
    pope = ["--pope-path", str(tmp_path / "pope"), "--pope-type", "random", "--protocol", protocol]

    assert pope_eval.main([*flags(model, scenes, tmp_path / "runs"), *build, *pope]) == 0

    (folder,) = (tmp_path / f"runs/pope/{model[0]}").iterdir()
    run = read_run(folder)
    settings = run.settings
    tokens = {
        name: {found.image_tokens for answer in arm.answers for found in answer.findings}
        for name, arm in run.finished().items()
    }
    assert tokens == {"baseline": set(), "eah": {IMAGE_TOKENS[model[0]]}}
    assert (settings["family"], settings["protocol"]) == (model[0], protocol)
    assert (settings["dtype"], settings["quantization"]) == ("float32", None)


def test_chair_runs(model: tuple[str, Path], scenes: Path, tmp_path: Path) -> None:
    assert chair_eval.main(flags(model, scenes, tmp_path / "runs")) == 0

    (folder,) = (tmp_path / f"runs/chair/{model[0]}").iterdir()
    captions = (folder / "report/captions_eah.jsonl").read_text().splitlines()
    assert len(captions) == COUNT


def test_a_wrong_part_is_one_sentence(
    model: tuple[str, Path], scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*flags(model, scenes, tmp_path), "--projector", "nowhere.pth"]

    assert chair_eval.main(given) == 2

    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith("is a whole model; leave out --projector")
