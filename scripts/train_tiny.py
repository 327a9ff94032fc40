"""Run `scripts/scenes/train_tiny.py` under its former path."""

import sys

from scripts.scenes.train_tiny import main

if __name__ == "__main__":
    sys.exit(main())
