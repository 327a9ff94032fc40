"""Run `scripts/data/convert_checkpoint.py` under its former path."""

import sys

from scripts.data.convert_checkpoint import main

if __name__ == "__main__":
    sys.exit(main())
