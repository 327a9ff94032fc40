"""Run `scripts/check/shapes.py` under its former path."""

import sys

from scripts.check.shapes import main

if __name__ == "__main__":
    sys.exit(main())
