#!/usr/bin/env bash
# The whole pipeline on the embedded tiny-llava: scenes, POPE questions, baseline and EAH, one table.
#   bash scripts/demo.sh [FOLDER]      (default data/demo; pictures and run folders go there)
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh chair

folder=${1:-data/demo}
# Training used seed 1; these scenes are of another seed, so the model has never seen them.
python scripts/make_scenes.py --output "$folder/scenes" --count 200 --seed 2014 >&2
python eval/pope_eval.py --model tiny-llava --method baseline eah --pope-type all \
  --data-path "$folder/scenes/val2014" \
  --build-from "$folder/scenes/annotations/instances_val2014.json" \
  --pope-path "$folder/scenes/pope" \
  --output-dir "$folder/runs" --batch-size 48
echo
echo "tiny-llava shows that the software works; it says nothing about the paper's claim."
