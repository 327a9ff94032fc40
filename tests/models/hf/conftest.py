"""Checkpoint folders, written once a session, and what is loaded from them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    __version__,
)

from models.hf import HFVlm
from models.processor import load_processor as load_own_processor
from tests.models.hf import CHECKPOINTS, build
from tests.models.hf.asking import Loaded, load_processor, missing
from tests.models.hf.scenes import Scenes, write

Wrap = Callable[[str], HFVlm]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a checkpoint, by its name."""

    @cache
    def folder(name: str) -> Path:
        return build(name, tmp_path_factory.mktemp("checkpoints") / name)

    def skip_or_build(name: str) -> Path:
        if not CHECKPOINTS[name].known():
            pytest.skip(f"transformers {__version__} has no {name} among its image-text models")
        return folder(name)

    return skip_or_build


@pytest.fixture(scope="session")
def load(folder_of: Callable[[str], Path]) -> Callable[[str], Loaded]:
    """Return a function that loads a checkpoint, by its name."""

    @cache
    def loaded(name: str, folder: Path) -> Loaded:
        checkpoint = CHECKPOINTS[name]
        model = AutoModelForImageTextToText.from_pretrained(folder)
        return Loaded(checkpoint, folder, model.eval(), load_processor(checkpoint, folder))

    def skip_or_load(name: str) -> Loaded:
        folder = folder_of(name)
        absent = missing(CHECKPOINTS[name].images_need)
        if absent:
            pytest.skip(f"the processor of {name} needs {', '.join(absent)}")
        return loaded(name, folder)

    return skip_or_load


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """Return 12 scenes with POPE's questions about them."""
    return write(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def wrap(load: Callable[[str], Loaded]) -> Wrap:
    """Return a function that loads a checkpoint and wraps it, by its name."""

    @cache
    def wrapped(name: str) -> HFVlm:
        loaded = load(name)
        return HFVlm(loaded.model, load_own_processor(str(loaded.folder), loaded.model.config))

    return wrapped


@pytest.fixture(scope="session")
def pictures(scenes: Scenes) -> list[Image.Image]:
    """Return pictures of three shapes."""
    first, second, third = scenes.pictures()[:3]
    return [first, second.resize((224, 120)), third.resize((100, 224))]
