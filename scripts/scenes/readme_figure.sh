#!/usr/bin/env bash
# Draws the README's figure: where tiny-llava looks in one scene, before and after EAH.
#   bash scripts/scenes/readme_figure.sh [FILE]      (default docs/sinks.png)
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/venv.sh chair plots

target=${1:-docs/sinks.png}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python scripts/scenes/make.py --output "$folder/scenes" --count 1 --seed 2014 >&2
run=$(python eval/sinks.py --model tiny-llava --data-path "$folder/scenes/val2014" --num-images 1 \
  --output-dir "$folder/runs" | sed -n 's/^run folder: //p')
cp "$run"/figures/*-picture-*.png "$target"
echo "$target"
