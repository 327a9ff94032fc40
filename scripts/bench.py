"""Run `scripts/bench/costs.py` under its former path."""

import sys

from scripts.bench.costs import main

if __name__ == "__main__":
    sys.exit(main())
