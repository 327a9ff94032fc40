"""BLIP-2 and InstructBLIP: one picture, whose tokens the processor puts in front by itself."""

from __future__ import annotations

from functools import partial

from tests.eah.families.qformers import QFORMER
from tests.models.hf.checkpoint import Checkpoint, Words
from tests.models.hf.sizes import CLIP, STEPS, square
from tests.models.hf.vocabulary import byte_level, metaspace, word_piece

IMAGE = {"image_processor_type": "BlipImageProcessor", **STEPS, **CLIP, **square(16)}
BERT = Words(
    word_piece,
    ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
    more={"padding_side": "right"},
)

CHECKPOINTS = (
    Checkpoint(
        name="blip-2",
        case="blip-2",
        words=Words(
            byte_level,
            ("<pad>", "</s>", "<image>"),
            {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"},
        ),
        processor={"processor_class": "Blip2Processor", "num_query_tokens": 8},
        image=IMAGE,
        template=None,
        ids={"image_token_index": "<image>"},
        placeholder="<image>",
        shown=1,
    ),
    Checkpoint(
        name="instructblip",
        case="instructblip",
        words=Words(
            partial(metaspace, bos="<s>"),
            ("<unk>", "<s>", "</s>", "<image>", "<pad>"),
            {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        ),
        processor={"processor_class": "InstructBlipProcessor", "num_query_tokens": 8},
        image=IMAGE,
        template=None,
        ids={"image_token_index": "<image>"},
        tokenizers={"qformer_tokenizer": BERT},
        varies="the processor pads the Q-Former's text on the left, which moves its positions",
        settings={"qformer_config": {**QFORMER, "vocab_size": 300}},
        placeholder="<image>",
        shown=1,
    ),
)
