"""Run `scripts/check/kernel.py` under its former path."""

import sys

from scripts.check.kernel import main

if __name__ == "__main__":
    sys.exit(main())
