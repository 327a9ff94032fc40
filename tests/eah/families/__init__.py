"""Tiny models of transformers' vision-language families, with prompts that hold pictures."""

from __future__ import annotations

from collections.abc import Mapping

from tests.eah.families import (
    encoders,
    gemma,
    glm,
    grids,
    hybrids,
    kosmos,
    llava,
    muse,
    ocr,
    paligemma,
    qformers,
    qwen,
    refused,
    sparse,
    tokens,
    towers,
)
from tests.eah.families.case import PROMPTS, REASONS, Family

FAMILIES: tuple[Family, ...] = (
    *llava.FAMILIES,
    *towers.FAMILIES,
    *ocr.FAMILIES,
    *paligemma.FAMILIES,
    *gemma.FAMILIES,
    *qwen.FAMILIES,
    *glm.FAMILIES,
    *grids.FAMILIES,
    *hybrids.FAMILIES,
    *muse.FAMILIES,
    *tokens.FAMILIES,
    *kosmos.FAMILIES,
    *qformers.FAMILIES,
    *refused.FAMILIES,
    *encoders.FAMILIES,
    *sparse.FAMILIES,
)
WORKING = tuple(family for family in FAMILIES if family.refused is None)
REFUSED = tuple(family for family in FAMILIES if family.refused is not None)
# Families of transformers' table of image-text models that have no case, and why.
SKIPPED: Mapping[str, str] = {
    "evolla": "reads proteins, not pictures",
    "glmga": "glm46v under another name",
    "mistral4": "a language model, without pictures",
    "pi0": "PaliGemma inside a model of a robot's actions",
    "pp_chart2table": "got_ocr2 under another name",
    "pp_formulanet": "an encoder-decoder",
    "shieldgemma2": "gemma3 under another name",
    "vision-encoder-decoder": "an encoder-decoder",
}

__all__ = ["FAMILIES", "PROMPTS", "REASONS", "REFUSED", "SKIPPED", "WORKING", "Family"]
