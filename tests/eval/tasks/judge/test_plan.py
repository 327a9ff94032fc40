"""What is paid for is found again: folders and requests have the names that they always had."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from eval.tasks.judge.config import JudgeConfig, read_config
from eval.tasks.judge.inputs import JudgeInputs
from eval.tasks.judge.plan import plan_judging
from eval.tasks.judge.requests import Arm, Pair

# One red pixel, byte by byte, because a folder's name depends on the bytes of the pictures.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
PAIR = Pair(Arm("baseline", {7: "A dog.", 3: "A cat."}, "a.jsonl"),
            Arm("eah", {7: "A \u00fcber dog.", 3: "Two cats."}, "b.jsonl"))  # fmt: skip


def config(folder: Path, settings: str = "") -> JudgeConfig:
    path = folder / "judge.yaml"
    path.write_text("{judge_model: org/judge, judge_base_url: 'http://h/v1', " + settings + "}")
    return read_config(path, {})


def pictures(folder: Path) -> Path:
    for image_id in PAIR.ids:
        (folder / f"{image_id}.png").write_bytes(PNG)
    return folder


@pytest.mark.parametrize(
    ("settings", "name", "key"),
    [
        (
            "",
            "opera-image-2images-both-269c88dc",
            "4bff75b6aef6c4b18c837be1c3644e0b251c1640fd9216cd356b5bbc24323d26",
        ),
        (
            "temperature: 0, reasoning_effort: low",
            "opera-image-2images-both-703ee479",
            "d093ed896ef96d8d076ac7e9468d13462d9d5929a75bf4e01a6b419d341f0396",
        ),
        (
            "temperature: 0.0, judge_protocol: json",
            "json-image-2images-both-5229b694",
            "3d0347dc2c9313e1831dfdf26f00c1cfd5afc68a3547cf1a289e91a43d2bd51f",
        ),
    ],
    ids=["plain", "whole temperature", "schema"],
)
def test_names_with_pictures(tmp_path: Path, settings: str, name: str, key: str) -> None:
    inputs = JudgeInputs(data_path=pictures(tmp_path))

    plan = plan_judging(PAIR, config(tmp_path, settings), inputs)

    assert [(one.image_id, one.order) for one in plan.requests] == [
        (7, "12"), (7, "21"), (3, "12"), (3, "21")
    ]  # fmt: skip
    assert plan.folder(tmp_path).path == tmp_path / "judge/org-judge" / name
    assert plan.requests[1].key == key


def test_names_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text('{"3": ["cat"], "7": ["dog", "couch"]}')
    inputs = JudgeInputs(ground_truth=tmp_path / "truth.json", single_order=True)

    plan = plan_judging(PAIR, config(tmp_path, "judge_mode: text"), inputs)

    assert plan.folder(tmp_path).path.name == "opera-text-2images-single-883e2af1"
    assert (
        plan.requests[1].key == "47b201654281e34e6a86f516f2ef5d43395f953c112e1c675f19c2087226cdba"
    )
