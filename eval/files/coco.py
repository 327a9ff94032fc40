"""Read COCO's annotation files through pycocotools: which objects and captions a picture has."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.errors import EvaluationError

KINDS: Final = ("instances", "captions")
SPLITS: Final = ("train2014", "val2014")
SOURCE: Final = (
    "annotations_trainval2014.zip of cocodataset.org, which scripts/download_data.sh fetches"
)


@dataclass(frozen=True, slots=True)
class Instances:
    """Pictures of an instances file by image id.

    Attributes:
        file_names: Where the picture is.
        objects: Names of the categories that are in it; there may be none.
    """

    file_names: dict[int, str]
    objects: dict[int, set[str]]


def annotation_files(folder: Path, splits: Sequence[str] = SPLITS) -> dict[str, Path]:
    """Return the annotation files of a folder by name.

    Raises:
        EvaluationError: Naming the files that are missing.
    """
    if not folder.is_dir():
        raise EvaluationError(f"--coco_path {folder} is not a folder; pass that of {SOURCE}")
    names = [f"{kind}_{split}.json" for kind in KINDS for split in splits]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise EvaluationError(
            f"{folder} lacks {', '.join(missing)} (needed are {', '.join(names)}); "
            f"they are in {SOURCE}; captions of one split need the files of that split only "
            "(--splits val2014)"
        )
    return {name: folder / name for name in names}


def read_instances(path: Path) -> Instances:
    """Read an instances file.

    Raises:
        EvaluationError: If it can't be read or is not COCO's, or pycocotools is missing.
    """
    with _reading(path):
        content = _load(path)
        names = {category["id"]: category["name"] for category in content["categories"]}
        file_names = {image["id"]: image["file_name"] for image in content["images"]}
        objects: dict[int, set[str]] = {image_id: set() for image_id in file_names}
        for annotation in content["annotations"]:
            objects[annotation["image_id"]].add(names[annotation["category_id"]])
    return Instances(file_names, objects)


def read_captions(path: Path) -> Iterator[tuple[int, str]]:
    """Yield image id and text of every caption of a captions file.

    Raises:
        EvaluationError: If it can't be read or is not COCO's, or pycocotools is missing.
    """
    with _reading(path):
        for annotation in _load(path)["annotations"]:
            yield int(annotation["image_id"]), str(annotation["caption"])


def _load(path: Path) -> dict[str, Any]:
    from pycocotools.coco import COCO

    with redirect_stdout(io.StringIO()):  # pycocotools tells of its progress on standard output
        content: dict[str, Any] = COCO(str(path)).dataset
    return content


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what pycocotools raises into one sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise EvaluationError(
            "COCO's annotations are read with pycocotools: pip install 'pycocotools>=2.0.8'"
        ) from error
    except OSError as error:
        raise EvaluationError(
            f"{path} can't be read: {error.strerror}; it is in {SOURCE}"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise EvaluationError(
            f"{path} is not whole JSON ({error}); it may have been cut off, get it again: it is in "
            f"{SOURCE}"
        ) from error
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"{path} is not a COCO annotation file of that kind ({type(error).__name__}: {error})"
        ) from error
