"""Models of lmms-eval under EAH: `pip install 'eah[lmms]'`, then `lmms_eval --model eah_llava_hf`.

lmms-eval finds `manifests` by the entry point group `lmms_eval.models`. docs/lmms-eval.md in the
project's clone has the arguments.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

if find_spec("lmms_eval") is None:
    raise ImportError(
        "eah.lmms is a plug-in of lmms-eval, which is not installed; run pip install 'eah[lmms]'"
    )

KINDS: Final = ("simple", "chat")  # how lmms-eval passes a document: in parts, or as messages
MODELS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "eah_llava_hf": ("llava_hf", KINDS),
    "eah_qwen2_5_vl": ("qwen2_5_vl", KINDS),
    "eah_qwen3_vl": ("qwen3_vl", KINDS),
    "eah_internvl": ("internvl_hf", ("chat",)),
}
"""Our name of a model, lmms-eval's name of its base model, and the kinds that exist."""
ANY: Final = "eah_hf"
"""Our name of any other model; the argument `of` is lmms-eval's name of it."""


def manifests() -> list[Any]:
    """Return the name and the class paths of each model, for lmms-eval."""
    from lmms_eval.models.registry_v2 import ModelManifest

    kinds = {**{name: of_kinds for name, (_, of_kinds) in MODELS.items()}, ANY: KINDS}
    return [
        ModelManifest(
            name,
            **{f"{kind}_class_path": f"eah.lmms.classes.{name}_{kind}" for kind in of_kinds},
        )
        for name, of_kinds in kinds.items()
    ]
