#!/usr/bin/env bash
# Lint, types, the wheel's contents, tests, and the drop-in in three versions of transformers. Works
# alone on a machine with git and Python.
#   bash scripts/test.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh dev

step() { echo "== $*" >&2; }

step lint
ruff check .
ruff format --check .
codespell
python scripts/check/prose.py

step types
mypy

step wheel
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
python -m build --wheel --outdir "$wheels" . >"$wheels/log" 2>&1 || { cat "$wheels/log" >&2; exit 1; }
python scripts/check/wheel_contents.py "$wheels"/*.whl

step tests
# Two processes, one thread each: the models are tiny. Tests of a file share what they build.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} python -m pytest -n 2 --dist loadfile "$@"

# Arguments choose certain tests: skip the matrix.
if [ $# -eq 0 ]; then
  step "drop-in in other transformers"
  bash scripts/test_matrix.sh --short
fi
