"""Run `scripts/bench/judge.py` under its former path."""

import sys

from scripts.bench.judge import main

if __name__ == "__main__":
    sys.exit(main())
