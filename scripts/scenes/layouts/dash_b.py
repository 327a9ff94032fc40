"""DASH-B's lists: source, object and pictures, those that hold the object and those that do not."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Final

from scripts.scenes.layouts.described import Files, Picture, Scenes, array
from scripts.scenes.scene import RARE, THEMES

OBJECTS: Final = 4  # of a source
PICTURES: Final = 4  # of an object, on either side


def dash_b(scenes: Scenes, rng: random.Random) -> Files:
    """Write both lists and their pictures; negatives are of a theme that the object goes with."""
    frequency = Counter(name for picture in scenes.pictures for name in picture.names)
    frequent = [name for name, count in frequency.most_common() if count >= PICTURES]
    sources = {
        "scenes_common": frequent[:OBJECTS],
        "scenes_uncommon": frequent[OBJECTS:][-OBJECTS:],
    }
    files: dict[str, str | bytes | Path] = {}
    for side in ("neg", "pos"):
        listed: dict[str, dict[str, list[str]]] = {}
        for source, names in sources.items():
            for name in names:
                chosen = _chosen(scenes, name, rng, holds=side == "pos")
                listed.setdefault(source, {})[name] = [f"{p.id}.jpg" for p in chosen]
                for picture in chosen:
                    files[f"images/{side}/{source}/{name}/{picture.id}.jpg"] = picture.path
        files[f"images/dash_benchmark_{side}.json"] = array(listed)
    return files


def _chosen(scenes: Scenes, name: str, rng: random.Random, *, holds: bool) -> list[Picture]:
    found = [picture for picture in scenes.pictures if (name in picture.counts) == holds]
    if not holds:  # stable, so that what is equally likely stays in the scenes' order
        found.sort(key=lambda picture: -THEMES[picture.theme].get(name, RARE))
        found = found[: 2 * PICTURES]
    return rng.sample(found, min(PICTURES, len(found)))
