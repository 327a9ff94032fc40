#!/usr/bin/env bash
# Swap EAH's file into one transformers after the other, run the drop-in's checks there, take it back,
# and print one table.
#   bash scripts/test_matrix.sh                   all versions; .venvs/ keeps their environments
#   bash scripts/test_matrix.sh --short           the oldest, LLaVA's own, and the newest: what CI runs
#   bash scripts/test_matrix.sh --bench 4.37.2    some versions, with the time ratios
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh dev

all=(4.29.2 4.31.0 4.36.2 4.37.2 4.40.2 4.44.2 4.47.1 4.48.3 4.53.3 4.57.6 5.0.0 5.23.0)
bench=false versions=()
for argument in "$@"; do
  case $argument in
    --short) versions=(4.29.2 4.37.2 5.23.0) ;;
    --bench) bench=true ;;
    *) versions+=("$argument") ;;
  esac
done
[ ${#versions[@]} -gt 0 ] || versions=("${all[@]}")

# Two processes, one thread each, as in scripts/test.sh.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

pin() { grep "^$1==" constraints.txt | head -1 | cut -d';' -f1; }

# Makes .venvs/transformers-VERSION; fails where this Python has no wheels for it.
environment() {
  local version=$1 folder=.venvs/transformers-$1 numpy=numpy packages
  case $version in 4.[0-4]*) numpy='numpy<2' ;; esac
  packages=("$(pin torch)" "transformers==$version" "$numpy" safetensors "$(pin pytest)"
    "$(pin pytest-xdist)")
  [ "$(cat "$folder/done" 2>/dev/null)" = "${packages[*]}" ] && return
  python -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: \
    "${packages[@]}" >"$folder.log" 2>&1 && echo "${packages[*]}" >"$folder/done"
}

# Families whose file is swapped in a version.
families() {
  case $1 in 4.29* | 4.3* ) echo llama ;; *) echo llama mistral qwen2 ;; esac
}

restore() {
  local family
  for family in $(families "$version"); do
    python -m eah.swap restore --model "$family" --python "$1" >&2
  done
}

failed=0 table="| transformers | checks | prefill, EAH : plain | decode, EAH : plain |"
table+=$'\n'"|---|---|---|---|"
for version in "${versions[@]}"; do
  interpreter=.venvs/transformers-$version/bin/python
  echo "== transformers $version" >&2
  if ! environment "$version"; then
    tail -3 ".venvs/transformers-$version.log" >&2
    if grep -q "No matching distribution" ".venvs/transformers-$version.log"; then
      table+=$'\n'"| $version | no wheels for $(python --version) | | |"
    else
      table+=$'\n'"| $version | not installed, see .venvs/transformers-$version.log | | |"
      failed=1
    fi
    continue
  fi
  trap 'restore "$interpreter"' EXIT
  for family in $(families "$version"); do
    python -m eah.swap install --model "$family" --python "$interpreter" >&2
  done
  checks=$("$interpreter" -m pytest -c /dev/null --rootdir tests/drop_in --confcutdir tests \
    -p no:cacheprovider -q -n 2 --dist loadfile tests/drop_in/check_*.py 2>&1 | tee -a /dev/stderr | tail -1) || failed=1
  ratios=" | "
  if $bench; then
    ratios=$("$interpreter" scripts/bench/drop_in.py) || failed=1
  fi
  restore "$interpreter"
  trap - EXIT
  table+=$'\n'"| $version | ${checks//=/} | $ratios |"
done
echo "$table"
exit $failed
