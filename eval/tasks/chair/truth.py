"""What is in the pictures: objects of COCO's instances, and objects that its captions mention.

It is kept in a JSON file, with the analyzer that read the captions and the hashes of the annotation
files. Other tools' files that only map image ids to objects are read as well.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError
from eval.files.writing import write_atomically
from eval.tasks.chair.vocabulary import load_vocabulary

Objects = dict[int, frozenset[str]]
TEXTS_AT_ONCE: Final = 4000


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Objects by image id, and where they come from.

    Attributes:
        objects: Names among COCO's 80, by image id.
        analyzer: Identity of the analyzer that read the captions; None if the file does not say.
        inputs: SHA-256 of the annotation files by name; None if the file does not say.
    """

    objects: Objects
    analyzer: str | None = None
    inputs: Mapping[str, str] | None = None

    def hash(self, image_ids: Sequence[int]) -> str:
        """Return the SHA-256 of what is known of some pictures, whatever file it came from."""
        known = [[image_id, sorted(self.objects[image_id])] for image_id in sorted(image_ids)]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def read(path: Path) -> GroundTruth:
    """Read a ground truth file: ours, or just objects by image id; gzipped if named `.gz`.

    Raises:
        EvaluationError: If it can't be read or is not a ground truth.
    """
    if path.suffix == ".pkl":
        raise EvaluationError(
            f"{path} is a pickle, which can run any code when it is read; convert it with "
            f"`python scripts/import_chair_cache.py {path} --output {path.with_suffix('.json')}` "
            "and pass that file as --ground-truth"
        )
    try:
        content = path.read_bytes()
        parsed = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError, ValueError) as error:
        raise EvaluationError(
            f"{path} is not whole JSON ({error}); it may have been cut off: copy it again, or "
            "delete it and let it be built"
        ) from error
    except OSError as error:
        raise EvaluationError(f"{path} can't be read: {error.strerror}") from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get("objects", parsed), dict):
        raise EvaluationError(f"{path} is no ground truth: it must map image ids to object names")
    if "objects" not in parsed:
        return GroundTruth(_checked(path, parsed))
    return GroundTruth(_checked(path, parsed["objects"]), parsed.get("analyzer"),
                       parsed.get("inputs"))  # fmt: skip


def write(path: Path, truth: GroundTruth) -> None:
    """Write a ground truth file, gzipped if named `.gz`."""
    objects = {image_id: sorted(names) for image_id, names in sorted(truth.objects.items())}
    content = {"analyzer": truth.analyzer, "inputs": truth.inputs, "objects": objects}
    encoded = json.dumps(content).encode()
    write_atomically(path, gzip.compress(encoded, mtime=0) if path.suffix == ".gz" else encoded)


def _checked(path: Path, rows: Mapping[str, Any]) -> Objects:
    """Return objects by image id after checking ids and names."""
    known = set(load_vocabulary().object_of.values())
    objects: Objects = {}
    for key, names in rows.items():
        texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not key.isdigit() or not texts:
            raise EvaluationError(
                f"{path} is no ground truth: it must map image ids to lists of object names, but "
                f"has {key!r}: {names!r:.60}"
            )
        objects[int(key)] = frozenset(names)
        if not objects[int(key)] <= known:
            raise EvaluationError(
                f"{path}, image {key}: {sorted(objects[int(key)] - known)[0]!r} is none of COCO's "
                "80 objects"
            )
    return objects
