"""transformers' processor of a checkpoint: loading it, its tokenizer, its image token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, Final

from PIL import Image
from transformers import PROCESSOR_MAPPING, AutoProcessor

from models.errors import ModelError
from models.library_errors import library_errors, one_line
from models.tokenizer import check_token_ids

IDS: Final = "input_ids"
PICTURE_PARTS: Final = ("image_processor", "tokenizer")
TORCHVISION: Final = "torchvision"
VIDEOS_NEED: Final = "videos_need"  # attribute of processors that were loaded without videos
SPACE: Final = "▁"
BYTE_LEVEL_SPACE: Final = "Ġ"


def load_processor(folder: str, config: Any) -> Any:
    """Load the processor of a checkpoint.

    Without torchvision, which transformers' video processors need, it is loaded without its video
    part and supports only pictures.

    Args:
        folder: Folder or hub id.
        config: The checkpoint's config, which determines the processor's class.
    Raises:
        ModelError: If there is none, or it needs a package that is not installed.
    """
    found, reason = None, None
    for loader in filter(None, (AutoProcessor, _without_videos(config))):
        try:
            with library_errors("", ""):
                found = loader.from_pretrained(folder, trust_remote_code=False)
            break
        except ModelError as error:
            reason = reason or error.__cause__  # the whole processor's error is more useful
    if all(getattr(found, part, None) is not None for part in PICTURE_PARTS):
        return found
    what = type(found).__name__ if reason is None else one_line(reason)
    if isinstance(reason, ImportError):
        raise ModelError(
            f"the processor of {folder} needs a package that is not installed ({what}); install "
            "the torchvision release that belongs to your torch"
        ) from reason
    raise ModelError(
        f"{folder} has no processor for pictures that transformers can load ({what}); copy the "
        "original checkpoint's preprocessor_config.json, tokenizer and other processor files into "
        "that folder"
    ) from reason


def _without_videos(config: Any) -> Any:
    """Return the processor's class without its video part if torchvision is missing, else None."""
    whole = PROCESSOR_MAPPING.get(type(config), None)
    if whole is None or find_spec(TORCHVISION) is not None:
        return None
    parts = list(PICTURE_PARTS)
    body = {"attributes": parts, "get_attributes": classmethod(lambda _: parts)}
    return type(whole.__name__, (whole,), {**body, VIDEOS_NEED: TORCHVISION})


@cache
def image_token(processor: Any) -> str | None:
    """Return a picture's placeholder in a prompt; None if the processor inserts it itself.

    Some processors (BLIP-2's) put image tokens before any text, so that another placeholder would
    be too many. This is detected by counting image tokens with and without it in the text.
    """
    found = getattr(processor, "image_token", None)
    if found is None:
        return None
    token, picture = str(found), Image.new("RGB", (64, 64))
    id_ = processor.tokenizer.convert_tokens_to_ids(token)
    counts = []
    for text in (token, ""):
        try:
            made = processor(text=[f"{text}a"], images=[[picture]], return_tensors="pt")
            counts.append(int((made[IDS] == id_).sum()))
        except (TypeError, ValueError, IndexError):  # more pictures than placeholders
            counts.append(0)
    marked, bare = counts
    return None if marked > bare > 0 else token


class HFTokenizer:
    """transformers' tokenizer with the interface of `models.tokenizer.ChunkTokenizer`."""

    def __init__(self, tokenizer: Any, generation: Any, rows: int, media: Sequence[int]) -> None:
        """Store the tokenizer, and read the ids that end an answer from the generation config.

        Args:
            tokenizer: The processor's tokenizer.
            generation: The checkpoint's generation config.
            rows: Number of the model's embeddings.
            media: Ids of image and video tokens, which must not be used for padding.
        Raises:
            ModelError: If neither names a valid end of answers.
        """
        self._tokenizer = tokenizer
        check_token_ids(generation)
        ends = generation.eos_token_id
        ends = tokenizer.eos_token_id if ends is None or ends == [] else ends
        self.eos_ids: tuple[int, ...] = tuple(ends if isinstance(ends, list) else [ends])
        if not all(isinstance(id_, int) and 0 <= id_ < rows for id_ in self.eos_ids):
            raise ModelError(
                f"the checkpoint's eos_token_id is {ends!r:.80}, which is not a token that could "
                "end an answer; set it in generation_config.json"
            )
        pads = (generation.pad_token_id, tokenizer.pad_token_id)
        usable = (pad for pad in pads if pad is not None and 0 <= pad < rows and pad not in media)
        self.pad_id: int = next(usable, self.eos_ids[0])

    def encode(self, text: str, /) -> list[int]:
        """Return the ids of a text, without BOS or EOS."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int], /) -> str:
        """Return the text of ids without special tokens."""
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def bos_id(self) -> int:
        """Return the id of the beginning-of-sequence token; -1 if there is none."""
        found = self._tokenizer.bos_token_id
        return -1 if found is None else int(found)

    def eos_id(self) -> int:
        """Return the id of the end-of-sequence token, the first if there are several."""
        return self.eos_ids[0]

    def get_piece_size(self) -> int:
        """Return the size of the vocabulary."""
        return len(self._tokenizer)

    def id_to_piece(self, id_: int, /) -> str:
        """Return a token as it is spelled in the vocabulary, "▁" for a space at its start."""
        piece = str(self._tokenizer.convert_ids_to_tokens(id_))
        return SPACE + piece[1:] if piece.startswith(BYTE_LEVEL_SPACE) else piece
