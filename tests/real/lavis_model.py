"""Ask LAVIS' own InstructBLIP POPE's questions in one batch.

    lavis_model.py WORK     the folder with pictures and questions

Runs inside bootstrap.py, with a checkout of LAVIS to import from.
"""

import json
import sys

import torch
from lavis.models import load_model_and_preprocess
from PIL import Image

work = sys.argv[1]
model, processors, _ = load_model_and_preprocess(
    name="blip2_vicuna_instruct", model_type="vicuna7b", is_eval=True, device="cuda"
)
with open(f"{work}/questions.jsonl") as file:
    questions = [json.loads(line) for line in file]
images = [
    processors["eval"](Image.open(f"{work}/pictures/{question['image']}").convert("RGB"))
    for question in questions
]
prompts = [question["text"] for question in questions]
with torch.inference_mode():
    print(model.generate({"image": torch.stack(images), "prompt": prompts}, num_beams=1))
