"""Positions of image tokens in the picture, for families whose tokens form one square grid.

A square number of tokens does not prove this: each of a resampler's 64 tokens sees the whole
picture. So the families here are those that `tests/eah/test_grids.py` proves: a change in one cell
of the picture changes that cell's token most.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any, Final


def token_grid(config: Any, image_tokens: int) -> tuple[int, int] | None:
    """Return rows and columns of the image tokens of one picture, which run row by row.

    Args:
        config: The model's config, of transformers.
        image_tokens: Number of image tokens in the prompt.
    Returns:
        None if the tokens do not form a grid over the whole picture, or this is not known: queries
        of a Q-Former or a resampler, several tiles or pictures, other families.
    """
    side_of = SIDES.get(getattr(config, "model_type", None))  # type: ignore[arg-type]  # None is in no table
    side = None if side_of is None else side_of(config, config.vision_config)
    return None if side is None or image_tokens != side**2 else (side, side)


def _side_of_patches(config: Any, vision: Any) -> int:
    """Return the side of a grid with a token for each patch."""
    return int(vision.image_size // vision.patch_size)


def _side_of_llava(config: Any, vision: Any) -> int | None:
    """Return the side for LLaVA's relatives, if only the class token is dropped; else None."""
    drops_first = config.vision_feature_select_strategy == "default"
    has_first = {"clip_vision_model": True, "siglip_vision_model": False}.get(vision.model_type)
    return _side_of_patches(config, vision) if drops_first == has_first else None


def _side_of_gemma3(config: Any, vision: Any) -> int:
    """Return the side for Gemma 3, which averages squares of patches."""
    return isqrt(config.mm_tokens_per_image)


def _side_of_aya_vision(config: Any, vision: Any) -> int:
    """Return the side for Aya Vision's tiles, where each token is a square of patches."""
    return _side_of_patches(config, vision) // int(config.downsample_factor)


def _side_of_internvl(config: Any, vision: Any) -> int:
    """Return the side for InternVL's tiles, where each token is a square of patches."""
    return int(vision.image_size[0] // vision.patch_size[0] * config.downsample_ratio)


SIDES: Final[dict[str, Callable[[Any, Any], int | None]]] = {
    "llava": _side_of_llava,
    "vipllava": _side_of_patches,
    "shikra": _side_of_llava,  # `models.llava`'s
    "paligemma": _side_of_patches,
    "deepseek_vl": _side_of_patches,
    "janus": _side_of_patches,
    "gemma3": _side_of_gemma3,
    "aya_vision": _side_of_aya_vision,
    "cohere2_vision": _side_of_aya_vision,
    "internvl": _side_of_internvl,
}
