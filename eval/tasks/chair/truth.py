"""The ground truth: objects of COCO's instances, and objects that its captions mention.

COCO's captions are read by the same analyzer as the captions to score. With nltk, its 616,000
captions take minutes, so the result is kept in a JSON file with the analyzer and the hashes of the
annotation files. Other tools' files that only map image ids to objects are supported as well.
"""

from __future__ import annotations

import gc
import gzip
import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Any, Final

from eval.errors import EvaluationError, some_ids
from eval.files.coco import annotation_files, read_captions, read_instances
from eval.files.image_ids import ImageId, image_ids_of, sort_key
from eval.files.text import read_text
from eval.files.writing import write_atomically
from eval.tasks.chair.analyzers import Analyzer
from eval.tasks.chair.vocabulary import load_vocabulary
from models.file_hashes import file_hashes
from models.json_files import json_fault, parse_json

Objects = dict[ImageId, frozenset[str]]
SHA256: Final = re.compile("[0-9a-f]{64}")
TEXTS_AT_ONCE: Final = 4000
PARENT_S: Final = 1.0  # seconds between a worker's checks that the main process is alive


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Objects by image id, and their origin.

    Attributes:
        objects: Names among COCO's 80, by image id.
        analyzer: Identity of the analyzer that read the captions; None if the file has none.
        inputs: SHA-256 of the annotation files by name; None if the file has none.
    """

    objects: Objects
    analyzer: str | None = None
    inputs: Mapping[str, str] | None = None

    def hash(self, image_ids: Sequence[ImageId]) -> str:
        """Return the SHA-256 of the objects of some pictures, which does not depend on the file."""
        ids = sorted(image_ids, key=sort_key)
        known = [[image_id, sorted(self.objects[image_id])] for image_id in ids]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def read(path: Path) -> GroundTruth:
    """Read a ground truth file: one of this project, or objects by image id; gzipped or not.

    Raises:
        EvaluationError: If it can't be read or is not a ground truth.
    """
    if path.suffix == ".pkl":
        raise EvaluationError(
            f"{path} is a pickle, which can run code when it is loaded; convert it with "
            f"`python scripts/data/import_chair_cache.py {path} "
            f"--output {path.with_suffix('.json')}` and pass that file as --ground-truth"
        )
    text = read_text(path)
    try:
        with _gc_disabled():
            parsed = parse_json(text)
    except ValueError as error:
        raise EvaluationError(
            f"{path} is not valid JSON ({json_fault(error)}); it may be truncated, or not a ground "
            "truth: copy it again, or pass the right file; a cache can be deleted and is then "
            "rebuilt"
        ) from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get("objects", parsed), dict):
        raise EvaluationError(
            f"{path} is not a ground truth: it must map image ids to object names; pass another "
            "file"
        )
    if "objects" not in parsed:
        return GroundTruth(_validate_objects(path, parsed))
    analyzer, inputs = parsed.get("analyzer"), parsed.get("inputs")
    if not isinstance(analyzer, (str, NoneType)) or not isinstance(inputs, (dict, NoneType)):
        raise EvaluationError(
            f"{path} is not a ground truth of this project: its analyzer is {analyzer!r:.40} and "
            f"its inputs are {inputs!r:.40}, but text and an object are needed; copy it again, or "
            "delete it if it is a cache"
        )
    objects = _validate_objects(path, parsed["objects"])
    return GroundTruth(objects, analyzer, inputs if _is_cache(parsed) else None)


def _is_cache(parsed: Mapping[str, Any]) -> bool:
    """Return whether a ground truth is a cache of this project, which may be replaced."""
    inputs = parsed.get("inputs")
    return bool(parsed.keys() == {"analyzer", "inputs", "objects"} and parsed["analyzer"] and inputs
                and all(name.endswith(".json") and SHA256.fullmatch(str(of))
                        for name, of in inputs.items()))  # fmt: skip


def write(path: Path, truth: GroundTruth) -> None:
    """Write a ground truth file, gzipped if its name ends in `.gz`."""
    objects = {at: sorted(truth.objects[at]) for at in sorted(truth.objects, key=sort_key)}
    content = {"analyzer": truth.analyzer, "inputs": truth.inputs, "objects": objects}
    encoded = json.dumps(content).encode()
    write_atomically(path, gzip.compress(encoded, mtime=0) if path.suffix == ".gz" else encoded)


def cached_truth(
    folder: Path, analyzer: Analyzer, *, splits: Sequence[str], cache: Path, num_workers: int
) -> GroundTruth:
    """Return the ground truth of COCO's annotations, from the cache if it was built from them.

    Args:
        folder: Folder of `instances_*.json` and `captions_*.json`.
        analyzer: Analyzer that reads the captions.
        splits: Splits such as "val2014".
        cache: JSON file; replaced if it was built from other annotations or by another analyzer. If
            it can't be written, a note is printed on standard error.
        num_workers: Processes that read captions.
    Raises:
        EvaluationError: If a file is missing or damaged, or the cache file is not a cache.
    """
    files = annotation_files(folder, splits)
    hashes = file_hashes(files.values())
    inputs = {name: hashes[path] for name, path in files.items()}
    if cache.exists():
        cached = read(cache)
        if cached.inputs is None:
            raise EvaluationError(
                f"--cache {cache} does not name the annotations that it was built from, so it is "
                "not overwritten; pass it as --ground-truth to use it, or name another cache"
            )
        if cached.analyzer == analyzer.identity and cached.inputs == inputs:
            return cached
    objects = build(files, analyzer, splits=splits, num_workers=num_workers)
    truth = GroundTruth(objects, analyzer.identity, inputs)
    try:
        write(cache, truth)
    except EvaluationError as error:
        print(f"note: the ground truth could not be saved ({error}); pass --cache with a writable "
              "file to reuse it", file=sys.stderr)  # fmt: skip
    return truth


def build(
    files: Mapping[str, Path], analyzer: Analyzer, *, splits: Sequence[str], num_workers: int
) -> Objects:
    """Build objects by image id from instances and captions; arguments as in `cached_truth`."""
    found: dict[ImageId, set[str]] = {}
    for split in splits:
        found |= _instances(files[f"instances_{split}.json"])
    for split in splits:
        captions = read_captions(files[f"captions_{split}.json"])
        texts = [text for _, text in captions]
        named = _objects_in(texts, analyzer, f"captions_{split}", num_workers)
        for (image_id, _), objects in zip(captions, named, strict=True):
            found.setdefault(image_id, set()).update(objects)
    return {image_id: frozenset(objects) for image_id, objects in found.items()}


def _instances(path: Path) -> dict[ImageId, set[str]]:
    """Return the objects of an instances file after checking that CHAIR can find all of them."""
    objects = read_instances(path).objects
    other = sorted(set().union(*objects.values()) - _known_objects())
    if other:
        raise EvaluationError(
            f"{path} has {len(other)} categories that are not among COCO's 80: {some_ids(other)}; "
            "CHAIR only finds these 80, so use COCO's names (person, dining table, ...), or pass a "
            "file that maps image ids to such names as --ground-truth"
        )
    return objects


def _known_objects() -> set[str]:
    return set(load_vocabulary().object_of.values())


def _validate_objects(path: Path, rows: Mapping[str, Any]) -> Objects:
    """Return objects by image id after checking ids and names."""
    ids = image_ids_of(rows)
    with suppress(TypeError):  # a list instead of a name, or something else instead of a list
        names = {*chain.from_iterable(rows.values())}
        if {*map(type, rows.values())} <= {list} and names <= _known_objects():
            sets = map(frozenset, rows.values())
            with _gc_disabled():
                objects = {at: of for at, of in zip(ids, sets, strict=True) if at is not None}
            if len(objects) == len(rows):
                return objects
    raise EvaluationError(f"{path}{_describe_fault(rows, ids)}")


def _describe_fault(rows: Mapping[str, Any], ids: Sequence[ImageId | None]) -> str:
    """Return what is wrong in a ground truth, as the rest of a sentence after the file's name."""
    known = _known_objects()
    seen: set[ImageId] = set()
    for (key, names), image_id in zip(rows.items(), ids, strict=True):
        texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if image_id is None or not texts:
            return (
                " is not a ground truth: it must map image ids to lists of object names, but "
                f"has {key!r}: {names!r:.60}; correct it, or pass another file"
            )
        if image_id in seen:
            return (
                f" names the objects of image {image_id} twice, the second time as {key!r}; "
                "keep one of them"
            )
        seen.add(image_id)
        if other := sorted({*names} - known):
            return (
                f", image {key}: {other[0]!r} is not one of COCO's 80 objects; rename or remove it"
            )
    raise AssertionError("a valid ground truth has no fault")


@contextmanager
def _gc_disabled() -> Iterator[None]:
    """Turn off garbage collection while many objects are created that are all kept."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # Move the new objects to the oldest generation, so that the next collection skips them.
        gc.freeze()
        gc.unfreeze()
        if was_on:
            gc.enable()


def _objects_in(
    texts: Sequence[str], analyzer: Analyzer, label: str, num_workers: int
) -> Iterator[list[str]]:
    """Yield the objects that each text mentions, using several processes."""
    from tqdm import tqdm  # imported here, since an existing ground truth does not need it

    parts = [texts[at : at + TEXTS_AT_ONCE] for at in range(0, len(texts), TEXTS_AT_ONCE)]
    # With fork, the pool starts all processes at once, even if there is no work for them.
    count = max(min(num_workers, len(parts)), 1)
    try:
        with (
            tqdm(total=len(texts), unit="caption", desc=label) as progress,
            ProcessPoolExecutor(
                count, initializer=_start, initargs=(analyzer, os.getpid())
            ) as pool,
        ):
            for part in pool.map(_read_part, parts):
                yield from part
                progress.update(len(part))
    except BrokenProcessPool as error:
        raise EvaluationError(
            f"a process that reads {label} was killed, as systems do when memory runs out; pass "
            "--num-workers 1 to use less memory"
        ) from error


# Each worker process keeps its analyzer, since NLTK takes a second to load.
_analyzer: Analyzer


def _start(analyzer: Analyzer, parent: int) -> None:
    global _analyzer
    _analyzer = analyzer
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C


def _exit_with_parent(parent: int) -> None:
    """End this worker if the main process was killed; it would otherwise wait for work forever."""
    while os.getppid() == parent:
        time.sleep(PARENT_S)
    os._exit(1)


def _read_part(texts: Sequence[str]) -> list[list[str]]:
    return [sorted({mention.object for mention in _analyzer.analyze(text).mentions})
            for text in texts]  # fmt: skip
