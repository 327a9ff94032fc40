#!/usr/bin/env bash
# The whole pipeline on the embedded tiny-llava: scenes, POPE and CHAIR, baseline and EAH, sinks,
# and AMBER's questions about an attribute and a relation.
#   bash scripts/demo.sh [FOLDER]      (default data/demo; pictures and run folders go there)
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh chair plots

folder=${1:-data/demo}
# Training used seed 1; these scenes are of another seed, so the model has never seen them.
python scripts/scenes/make.py --output "$folder/scenes" --count 200 --seed 2014 >&2
asked=$(python eval/pope_eval.py --model tiny-llava --method baseline eah --pope-type all \
  --data-path "$folder/scenes/val2014" \
  --build-from "$folder/scenes/annotations/instances_val2014.json" \
  --pope-path "$folder/scenes/pope" \
  --output-dir "$folder/runs" --batch-size 48)
echo "$asked"
python eval/runs.py export "$(sed -n 's/^run folder: //p' <<<"$asked")" --format html \
  --output "$folder/pope.html" --overwrite
echo
described=$(python eval/chair_eval.py --model tiny-llava --method baseline eah --num-images 100 \
  --data-path "$folder/scenes/val2014" --output-dir "$folder/runs" --batch-size 50 \
  --score --analyzer lexicon)
echo "$described"
run=$(sed -n 's/^run folder: //p' <<<"$described")
echo
python eval/chair.py --cap_file "$run" --coco_path "$folder/scenes/annotations" --splits val2014 \
  --analyzer lexicon --report "$folder/chair.html" --images "$folder/scenes/val2014" \
  --overwrite >/dev/null
python eval/sinks.py --model tiny-llava --captions --analyzer lexicon --num-images 40 \
  --data-path "$folder/scenes/val2014" --output-dir "$folder/runs" --batch-size 40 \
  --report "$folder/sinks.html"
echo
python scripts/scenes/questions.py --scenes "$folder/scenes" --output "$folder/benchmarks" >&2
# Colours, and what is left of what: tiny-llava was trained on neither.
python eval/evaluate.py --task amber-discriminative --model tiny-llava --method baseline eah \
  --part state relation --scoring likelihood --questions "$folder/benchmarks/amber" \
  --data-path "$folder/benchmarks/amber/image" --output-dir "$folder/runs" --batch-size 48
echo
python eval/runs.py list "$folder/runs"
echo
echo "tiny-llava shows that the software works; it says nothing about the paper's claim."
echo
echo "pages, for a browser:"
echo "  $folder/pope.html   POPE: how EAH and the baseline differ, with intervals"
echo "  $folder/chair.html  CHAIR: captions side by side, hallucinated objects marked"
echo "  $folder/sinks.html  vision sinks: maps of all heads, before and after EAH"
