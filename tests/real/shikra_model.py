"""Ask Shikra's own model POPE's questions, as Shikra's own conversation and builder make them.

    shikra_model.py WORK     the folder with checkpoints, pictures and questions

Runs inside bootstrap.py, with a checkout of Shikra to import from.
"""

import json
import sys
import types

import torch
from mllm.conversation import get_conv_template
from mllm.models import load_pretrained
from PIL import Image

work = sys.argv[1]
model_arguments = types.SimpleNamespace(
    type="shikra",
    version="v1",
    cache_dir=None,
    model_name_or_path=f"{work}/shikra-7b",
    vision_tower=f"{work}/clip-224",
    pretrain_mm_mlp_adapter=None,
    mm_vision_select_layer=-2,
    model_max_length=2048,
    freeze_backbone=False,
    tune_mm_mlp_adapter=False,
    freeze_mm_mlp_adapter=False,
    sep_image_conv_front=False,
    image_token_len=256,
    mm_use_im_start_end=True,
)
training_arguments = types.SimpleNamespace(fp16=True, bf16=False, device="cuda", fsdp=None)
model, preprocessor = load_pretrained(model_arguments, training_arguments)
model = model.half().eval()
tokenizer = preprocessor["text"]
patches = "<im_patch>" * preprocessor["conv"]["image_token_len"]
with open(f"{work}/questions.jsonl") as file:
    questions = [json.loads(line) for line in file]
for question in questions:
    conversation = get_conv_template("vicuna_v1.1")
    asked = f"<im_start>{patches}<im_end> {question['text']}"
    conversation.append_message(conversation.roles[0], asked)
    conversation.append_message(conversation.roles[1], None)
    ids = tokenizer(conversation.get_prompt(), return_tensors="pt").input_ids
    image = Image.open(f"{work}/pictures/{question['image']}").convert("RGB")
    pixels = preprocessor["image"].preprocess(image, return_tensors="pt")["pixel_values"].half()
    with torch.inference_mode():
        answer = model.generate(ids, images=pixels, use_cache=True, do_sample=False)
    print(tokenizer.decode(answer[0, ids.shape[1] :]))
