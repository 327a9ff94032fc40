"""Write captions for CHAIR.

    python eval/chair_eval.py --model llava-1.5 --data-path /data/COCO/val2014 --gpu-id 0 --beam 5

Describes pictures under each method of the run (baseline and EAH by default) and writes one file of
captions per method, which eval/chair.py scores. The same command goes on where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from eval.command import RUN_ERRORS, finish
from eval.run.flags import Parser, resolve
from eval.tasks.chair.images import NUM_IMAGES, check_ids, pictures_in, read_ids, sample_ids
from eval.tasks.chair.settings import ChairSettings


def parser() -> Parser:
    """Return the command's flags."""
    flags = Parser((__doc__ or "").splitlines()[0])
    flags.flag("--question", metavar="TEXT", help="what the model is asked (the protocol's)")
    flags.flag("--image-ids", type=Path, metavar="FILE", help="ids, or captions, of the pictures")
    flags.flag("--num-images", type=int, help=f"pictures to draw from the folder ({NUM_IMAGES})")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = parser().parse(arguments)
    return finish("chair_eval", lambda: evaluate(resolve(ChairSettings(), given)), *RUN_ERRORS)


def evaluate(settings: ChairSettings) -> None:
    """Choose the pictures, get their captions and write them."""
    pictures = choose_pictures(settings)
    # Not before: it loads torch, which takes seconds, and what is wrong so far has been said.
    from eval.tasks.chair.chair_run import run_model

    run_model(settings, pictures)


def choose_pictures(settings: ChairSettings) -> dict[int, str]:
    """Return the file names of the run's pictures by image id, in order, cut to the limit."""
    folder = settings.pictures_folder()
    pictures = pictures_in(folder)
    if settings.image_ids is not None:
        ids = read_ids(settings.image_ids)[: settings.limit]
        check_ids(ids, pictures, path=settings.image_ids, folder=folder)
    else:
        count = settings.num_images or NUM_IMAGES
        if len(pictures) < count:
            print(
                f"note: {folder} holds {len(pictures)} pictures, fewer than {count}: "
                "the sample is all of them",
                file=sys.stderr,
            )
        ids = sample_ids(pictures, count, seed=settings.seed)[: settings.limit]
    return {image_id: pictures[image_id] for image_id in ids}


if __name__ == "__main__":
    sys.exit(main())
