"""Run `scripts/data/make_lexicon.py` under its former path."""

import sys

from scripts.data.make_lexicon import main

if __name__ == "__main__":
    sys.exit(main())
