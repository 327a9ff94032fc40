r"""Evaluate object hallucination with POPE.

    python eval/pope_eval.py --model llava-1.5 --data-path /data/COCO/val2014 \
        --pope-type random --gpu-id 0 --beam 5

Asks every question under each arm of the run (baseline and EAH by default) and prints one table.
The run folder that it names holds every answer; rerun the command to resume.
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
