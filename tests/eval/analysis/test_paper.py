"""The paper's numbers beside an ablation: only those of its own setting, and with their source."""

from __future__ import annotations

from dataclasses import replace

from eah.settings import EAHConfig
from eval.analysis.paper import SECTION, PaperValue, paper_numbers, paper_value
from eval.tasks.base import TASKS
from eval.tasks.pope.questions import POPE_TYPES
from models.settings import CONFIGS, read_yaml

PAPER = EAHConfig.preset("paper")


def percent(
    metric: str, config: EAHConfig | None, parts: tuple[str, ...] = (), task: str = "chair"
) -> float | None:
    found = paper_value(paper_numbers(task, "llava-1.5"), metric, parts, config)
    return None if found is None else found.value


def test_the_papers_setting_has_its_headline_numbers() -> None:
    assert PAPER.layers == (1,)
    assert (PAPER.threshold, PAPER.threshold_unit) == (0.002, "attention")
    assert percent("CHAIRs", PAPER) == 36.4
    assert percent("CHAIRi", PAPER, ("",)) == 9.9
    assert percent("CHAIRs", None) == 51.0
    assert percent("CHAIRi", None) == 15.2
    assert percent("f1", PAPER, POPE_TYPES, "pope") == 85.7
    assert percent("f1", None, POPE_TYPES, "pope") == 84.9
    assert percent("accuracy", PAPER, POPE_TYPES, "pope") == 86.0


def test_other_settings_parts_and_metrics_have_none() -> None:
    for changes in ({"layers": (2,)}, {"threshold": 0.001}, {"receivers": 4}, {"head": 0},
                    {"min_density": 0.15}):  # fmt: skip
        assert percent("CHAIRs", replace(PAPER, **changes)) is None
    assert percent("CHAIRs", EAHConfig.preset("scale-free")) is None
    assert percent("f1", PAPER, ("random",), "pope") is None
    assert percent("f1", PAPER, POPE_TYPES[:2], "pope") is None
    assert percent("accuracy", None, POPE_TYPES, "pope") is None, "the paper's baseline has F1 only"
    assert percent("Recall", PAPER) is None
    assert paper_numbers("chair", "tiny-llava") == []
    assert paper_numbers("mme", "llava-1.5") == []


def test_numbers_have_a_source_that_says_they_are_not_checked_in_the_original() -> None:
    found = paper_value(paper_numbers("chair", "llava-1.5"), "CHAIRs", (), PAPER)

    assert found == PaperValue(36.4, "EAH, as quoted by the LocoRE paper; 2nd")
    section = read_yaml(CONFIGS / "paper.yaml")[SECTION]
    assert section.keys() <= TASKS.keys()
    for models in section.values():
        assert all(entry["source"].endswith("2nd") for of in models.values() for entry in of)


def test_numbers_are_those_of_the_published_tables() -> None:
    """One number stands in two sections; they must not contradict each other."""
    content = read_yaml(CONFIGS / "paper.yaml")
    for task, models in content[SECTION].items():
        for model, entries in models.items():
            table = [
                {float(value) for value in row.values() if isinstance(value, float)}
                for row in content[task][model]
                if "EAH" in row["source"]
            ]
            for entry in entries:
                numbers = {value for value in entry.values() if isinstance(value, float)}
                assert numbers
                assert any(numbers <= row for row in table)
