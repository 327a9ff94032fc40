"""Convert `chair.pkl`, the cache of a public CHAIR tool, to a ground truth file for eval/chair.py.

    python scripts/data/import_chair_cache.py chair.pkl --output ground_truth.json.gz

A pickle names functions that reading it calls, whatever they are. Here it gets plain containers
and a stand-in for the class CHAIR; a file that names anything else is refused before that is even
looked up.
"""

from __future__ import annotations

import hashlib
import io
import os.path
import pickle
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from eval.command import finish
from eval.errors import EvaluationError
from eval.run.flag_parser import FlagParser
from eval.tasks.chair.truth import GroundTruth, Objects, write
from eval.tasks.chair.vocabulary import load_vocabulary

# COCO's file names have room for so many digits.
MAX_IMAGE_ID: Final = 10**12 - 1
# What an unpickler raises at bytes that no pickler wrote.
DAMAGED: Final = (
    pickle.UnpicklingError, ArithmeticError, AttributeError, BufferError, EOFError, LookupError,
    MemoryError, RecursionError, TypeError, ValueError,
)  # fmt: skip


class Sealed(type):
    """A class whose attributes a pickle can't set: its contents stay plain data."""

    def __setattr__(cls, name: str, value: object) -> NoReturn:
        """Refuse."""
        raise pickle.UnpicklingError("it changes a class")


class Base(metaclass=Sealed):
    """Stands for `object`, which protocols 0 and 1 name as the base of CHAIR."""


class Chair(metaclass=Sealed):
    """Stands for the class CHAIR, whose attributes are all that is wanted.

    It also stands for the function `copyreg._reconstructor`, by which protocols 0 and 1 make one.
    """

    def __new__(cls, *arguments: object) -> Chair:
        """Return a new one, without arguments or with those that `_reconstructor` gets."""
        if arguments not in ((), (Chair, Base, None)):
            raise pickle.UnpicklingError("it makes something else than a CHAIR evaluator")
        return super().__new__(cls)


# `str` is not among them: it would look up a codec, by a name in the file, and run it.
ADMITTED: Final[dict[tuple[str, str], type]] = {
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("builtins", "set"): set,
    ("builtins", "int"): int,
    ("builtins", "long"): int,
    ("builtins", "object"): Base,
    ("collections", "defaultdict"): defaultdict,
    ("copyreg", "_reconstructor"): Chair,
}
# Protocols 0 to 2 use the names of Python 2, whichever Python writes them; `int` is `long` there.
PYTHON_2: Final = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class ChairUnpickler(pickle.Unpickler):
    """Reads a CHAIR cache and looks up none of the names in it."""

    def __init__(self, path: Path, content: bytes) -> None:
        """Take a file and what is in it."""
        # Python 2's texts are bytes without an encoding; objects are named in ASCII.
        super().__init__(io.BytesIO(content), encoding="latin-1")
        self._path = path

    def find_class(self, module: str, name: str) -> type:
        """Return the stand-in for a name.

        Raises:
            EvaluationError: If a CHAIR cache does not need it.
        """
        if name == "CHAIR":  # of __main__, chair, eval.chair: of whatever ran
            return Chair
        found = ADMITTED.get((PYTHON_2.get(module, module), name))
        if found is None:
            self._refuse(f"{module}.{name}")
        return found

    def persistent_load(self, pid: object) -> NoReturn:
        """Refuse an object that is kept elsewhere."""
        self._refuse("an object outside of it")

    def _refuse(self, asked: str) -> NoReturn:
        raise EvaluationError(
            f"{self._path} asks for {_printable(asked)}, which a CHAIR cache does not need; it was "
            "not run, do not trust this file"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    flags = FlagParser(__doc__ or "")
    flags.add_argument("cache", type=Path, metavar="chair.pkl", help="the tool's cache")
    flags.flag("--output", type=Path, required=True, help="file to write, .json or .json.gz")
    flags.flag("--force", action="store_true", help="replace an existing output")
    return finish(
        "import_chair_cache",
        lambda: import_cache(**flags.parse(arguments)),
        interrupted="nothing was written",
    )


def import_cache(cache: Path, output: Path, *, force: bool = False) -> None:
    """Write the ground truth in a CHAIR cache to a file, and print how much it is.

    Raises:
        EvaluationError: If the file is not a CHAIR cache, or the output can't be written or
            exists.
    """
    if not output.name.endswith((".json", ".json.gz")):
        raise EvaluationError(f"--output {output}: the name must end in .json or .json.gz")
    if os.path.lexists(output) and not force:
        raise EvaluationError(f"--output {output} exists; pass --force to replace it")
    if os.path.exists(cache) and not os.path.isfile(cache) and not os.path.isdir(cache):
        raise EvaluationError(f"{cache} can't be read: it is not a file")
    same = os.path.realpath(output) == os.path.realpath(cache)
    if same or (cache.exists() and output.exists() and os.path.samefile(cache, output)):
        raise EvaluationError(f"--output {output} is the cache itself; name another file")
    try:
        content = cache.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{cache} can't be read: {error.strerror}") from error
    objects = read_objects(cache, content)
    digest = hashlib.sha256(content).hexdigest()
    write(output, GroundTruth(objects, f"the tool that wrote {cache.name}, SHA-256 {digest[:12]}"))
    mean = sum(map(len, objects.values())) / len(objects)
    print(f"{len(objects):,} image(s) with {mean:.2f} objects each, written to {output}")


def read_objects(path: Path, content: bytes) -> Objects:
    """Return objects by image id from the content of a CHAIR cache.

    Raises:
        EvaluationError: If it is none, or names what a CHAIR cache does not need.
    """
    try:
        evaluator = ChairUnpickler(path, content).load()
    except DAMAGED as error:
        raise EvaluationError(
            f"{path} is not a complete CHAIR cache "
            f"({_printable(f'{type(error).__name__}: {error}')}); it may have been cut "
            "off, or be another file: copy it again"
        ) from error
    if not isinstance(evaluator, Chair):
        raise EvaluationError(
            f"{path} is not a CHAIR cache: it is a pickle, but not of the evaluator that CHAIR "
            "tools keep as chair.pkl"
        )
    rows = vars(evaluator).get("imid_to_objects")
    if not isinstance(rows, dict) or not rows:
        found = "missing" if rows is None else "empty" if isinstance(rows, dict) else "no dict"
        raise EvaluationError(
            f"{path} is not a CHAIR cache: imid_to_objects, its objects by image id, is {found}"
        )
    known = frozenset(load_vocabulary().object_of.values())
    return {
        image_id: _valid_objects(path, image_id, names, known) for image_id, names in rows.items()
    }


def _valid_objects(path: Path, image_id: Any, names: Any, known: frozenset[str]) -> frozenset[str]:
    """Return the objects of a picture after checking its id and their names.

    Types are compared, not values shown: to print what a stranger made can itself fail.
    """
    if type(image_id) is not int or not 0 <= image_id <= MAX_IMAGE_ID:
        raise EvaluationError(
            f"{path} is not a CHAIR cache: image ids are whole numbers of at most 12 digits, but "
            f"one is another {type(image_id).__name__}"
        )
    if type(names) not in (list, set) or any(type(name) is not str for name in names):
        raise EvaluationError(
            f"{path} is not a CHAIR cache: image {image_id} has no list or set of object names"
        )
    objects = frozenset(names)
    if not objects <= known:
        raise EvaluationError(
            f"{path}, image {image_id}: {min(objects - known)!r:.60} is not one of COCO's 80 "
            "objects"
        )
    return objects


def _printable(text: str) -> str:
    """Return a text from the file without what would break the line or steer the terminal."""
    shown = (letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:120])
    return "".join(shown)


if __name__ == "__main__":
    sys.exit(main())
