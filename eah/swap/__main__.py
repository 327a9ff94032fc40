"""Run the command: python -m eah.swap."""

from __future__ import annotations

import sys

from eah.swap import main

if __name__ == "__main__":
    sys.exit(main())
