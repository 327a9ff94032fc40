"""Ask MiniGPT-4's own model POPE's questions in one batch, by its own evaluation's functions.

    minigpt4_model.py WORK CONFIG     the folder with pictures and questions; a file of the checkout

Runs inside bootstrap.py, with a checkout of MiniGPT-4 to import from.
"""

import json
import sys
import types

import torch
from minigpt4.common.eval_utils import init_model, prepare_texts
from minigpt4.conversation.conversation import CONV_VISION_Vicuna0
from PIL import Image

work, config = sys.argv[1:]
model, processor = init_model(types.SimpleNamespace(cfg_path=config, options=None))
model.eval()
with open(f"{work}/questions.jsonl") as file:
    questions = [json.loads(line) for line in file]
images = [
    processor(Image.open(f"{work}/pictures/{question['image']}").convert("RGB"))
    for question in questions
]
texts = prepare_texts([question["text"] for question in questions], CONV_VISION_Vicuna0.copy())
with torch.inference_mode():
    print(model.generate(torch.stack(images), texts, num_beams=1, do_sample=False))
