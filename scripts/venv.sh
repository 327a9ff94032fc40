# Sourced by the other scripts: makes .venv, or brings it up to date, and puts it on the PATH.
# Usage: source scripts/venv.sh [EXTRA]...   (extras of pyproject.toml, such as chair or dev)

find_python() {
  local name
  for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3.10 python3 python; do
    if command -v "$name" >/dev/null 2>&1 && "$name" - <<'PY' >/dev/null 2>&1
import sys, venv, ensurepip
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PY
    then
      echo "$name"
      return
    fi
  done
  echo "No Python 3.10 to 3.13 with venv was found; install one, or set PYTHON to its path." >&2
  return 1
}

setup_venv() {
  local extras stamp wanted
  extras=$(IFS=,; echo "$*")
  stamp=.venv/installed-${extras:-none}
  if [ ! -x .venv/bin/python ]; then
    local python
    python=$(find_python)
    echo "making .venv with $python" >&2
    "$python" -m venv .venv
  fi
  # What is installed follows from these two files; the same ones need no second install.
  wanted=$(cat pyproject.toml constraints.txt | cksum)
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    echo "installing into .venv (once; a few minutes)" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      --constraint constraints.txt --editable ".${extras:+[$extras]}" >&2
    echo "$wanted" >"$stamp"
  fi
  PATH="$PWD/.venv/bin:$PATH"
  export PATH
}

setup_venv "$@"
