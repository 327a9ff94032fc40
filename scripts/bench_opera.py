"""Run `scripts/bench/opera.py` under its former path."""

import sys

from scripts.bench.opera import main

if __name__ == "__main__":
    sys.exit(main())
