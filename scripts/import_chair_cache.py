"""Run `scripts/data/import_chair_cache.py` under its former path."""

import sys

from scripts.data.import_chair_cache import main

if __name__ == "__main__":
    sys.exit(main())
