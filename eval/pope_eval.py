r"""Evaluate object hallucination with POPE.

    python eval/pope_eval.py --model llava-1.5 --data-path /data/COCO/val2014 \
        --pope-type random --gpu-id 0 --beam 5

Asks every question under each arm (default: baseline and EAH) and prints one table. All answers are
stored in the run folder that is printed. Rerun the command to resume.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from eval.evaluate import task_main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return task_main("pope", __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main())
