"""GLM's families: one placeholder for pictures and frames."""

from __future__ import annotations

import torch

from tests.eah.families.case import (
    END,
    IMAGE,
    START,
    Family,
    Media,
    Tensors,
    tiny,
)
from tests.eah.families.settings import (
    GLM,
    IDS,
    MROPE,
    PATCHES,
    PICTURE,
    VIDEO_PATCHES,
)

GLM_VIDEO = Media((95, *(START, *(IMAGE,) * 4, END) * 2, 96), VIDEO_PATCHES)


def glm_modalities(ids: torch.Tensor, mask: torch.Tensor) -> Tensors:
    """Return which tokens are text, image or video: GLM has one placeholder for both."""
    kind = 2 if bool((ids == GLM["video_start_token_id"]).any()) else 1
    return {"mm_token_type_ids": (ids == IMAGE) * kind}


FAMILIES = (
    Family(
        "glm4v",
        tiny(
            "glm4v",
            text={"rope_parameters": {**MROPE, "partial_rotary_factor": 1.0}},
            vision={"out_hidden_size": 32, "image_size": 24},
            **IDS,
            **GLM,
        ),
        Media(PICTURE, PATCHES),
        GLM_VIDEO,
        glm_modalities,
        source="image_token_id, also for video",
    ),
    Family(
        "glm46v",
        tiny(
            "glm46v",
            text={
                "model_type": "glm4v_text",
                "rope_parameters": {**MROPE, "partial_rotary_factor": 1.0},
            },
            vision={"model_type": "glm4v_vision", "out_hidden_size": 32, "image_size": 24},
            **IDS,
            **GLM,
        ),
        Media(PICTURE, PATCHES),
        GLM_VIDEO,
        glm_modalities,
        source="image_token_id, also for video",
    ),
    Family(
        "glm4v_moe",
        tiny(
            "glm4v_moe",
            text={
                "rope_parameters": {**MROPE, "partial_rotary_factor": 1.0},
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 16,
            },
            vision={"out_hidden_size": 32, "image_size": 24},
            **IDS,
            **GLM,
        ),
        Media(PICTURE, PATCHES),
        GLM_VIDEO,
        glm_modalities,
        source="image_token_id, also for video",
    ),
    Family(
        "glm_ocr",
        tiny(
            "glm_ocr",
            text={"rope_parameters": {**MROPE, "partial_rotary_factor": 1.0}, "head_dim": 8},
            vision={"out_hidden_size": 32, "image_size": 24},
            **IDS,
            **GLM,
        ),
        Media(PICTURE, PATCHES),
        GLM_VIDEO,
        glm_modalities,
        source="image_token_id, also for video",
    ),
)
