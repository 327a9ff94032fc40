"""Build CHAIR's ground truth from COCO's annotations, or take it from a cache of the same files.

The captions are read by the same analyzer as those that are scored, in several processes: with nltk
the 616,000 of them take minutes.
"""

from __future__ import annotations

import hashlib
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from tqdm import tqdm

from eval.errors import EvaluationError
from eval.files.coco import annotation_files, read_captions, read_instances
from eval.tasks.chair.analyzers import Analyzer
from eval.tasks.chair.truth import GroundTruth, Objects, read, write

TEXTS_AT_ONCE: Final = 4000


def cached_truth(
    folder: Path, analyzer: Analyzer, *, splits: Sequence[str], cache: Path, num_workers: int
) -> GroundTruth:
    """Return the ground truth of COCO's annotations, from the cache if that was made of them.

    Args:
        folder: Folder of `instances_*.json` and `captions_*.json`.
        analyzer: Reads the captions.
        splits: Such as "val2014".
        cache: JSON file; replaced if it was made from other annotations or by another analyzer. If
            it can't be written, a note says so.
        num_workers: Processes that read captions.
    Raises:
        EvaluationError: If a file is missing or damaged, or the cache is a file of another kind.
    """
    files = annotation_files(folder, splits)
    inputs = {name: file_hash(path) for name, path in files.items()}
    if cache.exists():
        cached = read(cache)
        if cached.inputs is None:
            raise EvaluationError(
                f"--cache {cache} does not say which annotations it was made from, so it is not "
                "overwritten; pass it as --ground-truth to use it, or name another cache"
            )
        if cached.analyzer == analyzer.identity and cached.inputs == inputs:
            return cached
    objects = build(files, analyzer, splits=splits, num_workers=num_workers)
    truth = GroundTruth(objects, analyzer.identity, inputs)
    try:
        write(cache, truth)
    except EvaluationError as error:
        print(f"note: the ground truth is not kept ({error}); pass --cache", file=sys.stderr)
    return truth


def build(
    files: Mapping[str, Path], analyzer: Analyzer, *, splits: Sequence[str], num_workers: int
) -> Objects:
    """Return objects by image id, from instances and captions; arguments as in `cached_truth`."""
    found: dict[int, set[str]] = {}
    for split in splits:
        found |= read_instances(files[f"instances_{split}.json"]).objects
        captions = list(read_captions(files[f"captions_{split}.json"]))
        texts = [text for _, text in captions]
        named = _objects_in(texts, analyzer, f"captions_{split}", num_workers)
        for (image_id, _), objects in zip(captions, named, strict=True):
            found.setdefault(image_id, set()).update(objects)
    return {image_id: frozenset(objects) for image_id, objects in found.items()}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _objects_in(
    texts: Sequence[str], analyzer: Analyzer, label: str, num_workers: int
) -> Iterator[list[str]]:
    """Yield the objects that each text mentions, read by several processes."""
    parts = [texts[at : at + TEXTS_AT_ONCE] for at in range(0, len(texts), TEXTS_AT_ONCE)]
    with (
        tqdm(total=len(texts), unit="caption", desc=label) as progress,
        ProcessPoolExecutor(num_workers, initializer=_start, initargs=(analyzer,)) as pool,
    ):
        for part in pool.map(_read_part, parts):
            yield from part
            progress.update(len(part))


# Each worker process keeps the analyzer that it was started with: NLTK's takes a second to load.
_analyzer: Analyzer


def _start(analyzer: Analyzer) -> None:
    global _analyzer
    _analyzer = analyzer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle


def _read_part(texts: Sequence[str]) -> list[list[str]]:
    return [sorted({mention.object for mention in _analyzer.analyze(text).mentions})
            for text in texts]  # fmt: skip
