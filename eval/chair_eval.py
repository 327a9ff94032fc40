"""Write captions for CHAIR, and optionally score them.

    python eval/chair_eval.py --model llava-1.5 --data-path /data/COCO/val2014 --gpu-id 0 --beam 5

The model describes each picture under each arm (default: baseline and EAH). Writes one file of
captions per arm for eval/chair.py; --score also scores them. Rerun the command to resume.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from eval.evaluate import task_main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return task_main("chair", __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main())
