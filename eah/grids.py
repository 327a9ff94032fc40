"""Where in a picture a model's image tokens are, for families whose tokens are one square grid.

A square number of tokens is no proof: the 64 of a resampler each look at the whole picture. So this
lists families of which `tests/eah/test_grids.py` shows it: a change in one cell of the picture
changes the token of that cell most.
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
        None where the tokens are no grid that covers the whole picture, or it is not known to be
        one: queries of a Q-Former or a resampler, several tiles or pictures, other families.
    """
    side_of = SIDES.get(getattr(config, "model_type", None))  # type: ignore[arg-type]  # None is in no table
    side = None if side_of is None else side_of(config, config.vision_config)
    return None if side is None or image_tokens != side**2 else (side, side)


def _side_of_patches(config: Any, vision: Any) -> int:
    """Return the side of a grid with a token for each patch."""
    return int(vision.image_size // vision.patch_size)


def _side_of_llava(config: Any, vision: Any) -> int | None:
    """Return that of LLaVA's relatives, where the class token is dropped and nothing else."""
    drops_first = config.vision_feature_select_strategy == "default"
    has_first = {"clip_vision_model": True, "siglip_vision_model": False}.get(vision.model_type)
    return _side_of_patches(config, vision) if drops_first == has_first else None


def _side_of_gemma3(config: Any, vision: Any) -> int:
    """Return that of Gemma 3, which averages squares of patches."""
    return isqrt(config.mm_tokens_per_image)


def _side_of_aya_vision(config: Any, vision: Any) -> int:
    """Return that of Aya Vision's tiles, of which each token is a square of patches."""
    return _side_of_patches(config, vision) // int(config.downsample_factor)


def _side_of_internvl(config: Any, vision: Any) -> int:
    """Return that of InternVL's tiles, likewise."""
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
