"""Write which pairs of AMBER's words a spaCy model finds similar.

    python scripts/data/amber_pairs.py --questions AMBER/data --output amber_pairs.json

AMBER's scorer takes two words for the same thing where spaCy finds them more than 0.8 similar. With
the table, `--task amber-generative --similar amber_pairs.json` does so without spaCy. Install it
with `pip install '.[amber]'`, and the model with `python -m spacy download en_core_web_lg`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.command import finish
from eval.errors import EvaluationError
from eval.run.flag_parser import FlagParser
from eval.run.outputs import check_outputs, output_files
from eval.tasks.amber.folder import amber_folder, read_words
from eval.tasks.amber.similar import REFERENCE, table_content, table_of


def load(model: str) -> Any:
    """Return a spaCy model that has word vectors.

    Raises:
        EvaluationError: If spaCy, the model or its vectors are missing.
    """
    try:
        import spacy
    except ModuleNotFoundError as error:
        raise EvaluationError(
            "similar words are found by spaCy, which is not installed: pip install '.[amber]'"
        ) from error
    try:
        found = spacy.load(model)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).split("\n")[0]
        raise EvaluationError(
            f"spaCy can't load --model {model} ({reason:.200}); install it with `python -m spacy "
            f"download {REFERENCE}`, or name the model's folder"
        ) from error
    if not found.vocab.vectors.n_keys:
        raise EvaluationError(
            f"--model {model} has no word vectors, as the sm models of spaCy have none; take "
            f"{REFERENCE}, which AMBER takes"
        )
    return found


def write(
    *,
    output: Path,
    questions: Path | None = None,
    model: str = REFERENCE,
    overwrite: bool = False,
) -> None:
    """Write the table and say what is in it.

    Args:
        output: The table.
        questions: Folder of AMBER's files; None for that of download_data.sh.
        model: Name or folder of a spaCy model.
        overwrite: Whether a file that this command did not write may be replaced.
    Raises:
        EvaluationError: If something is missing, or the table can't be written.
    """
    folder = amber_folder(questions)
    files = output_files("amber_pairs", overwrite=overwrite, output=output)
    check_outputs(files.values(), [folder])
    words = read_words(folder)
    nlp = load(model)
    texts = {word: nlp(word) for word in words.known}
    # A word without a vector is similar to itself alone, says spaCy, and warns.
    known = [word for word, text in texts.items() if text.vector_norm]
    pairs = table_of(known, lambda one, other: float(texts[one].similarity(texts[other])))
    content = table_content(
        words,
        pairs,
        model=f"{nlp.meta['lang']}_{nlp.meta['name']}",
        version=str(nlp.meta["version"]),
        spacy=str(sys.modules["spacy"].__version__),
        without_vector=sorted(words.known.difference(known)),
    )
    files["output"].write_json(content)
    count = sum(map(len, pairs.values()))
    print(
        f"{count} similar pairs of {len(texts)} words in {output}, from {content['model']} "
        f"{content['version']}; {len(content['without_vector'])} words have no vector"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    flags = FlagParser(__doc__ or "")
    flags.flag(
        "--questions", type=Path, help="folder data/ of AMBER's repository (default: data/AMBER)"
    )
    flags.flag("--model", help=f"spaCy model with vectors: name or folder (default: {REFERENCE})")
    flags.flag("--output", type=Path, metavar="FILE", required=True, help="the table to write")
    flags.overwrite_flag()
    return finish(
        "amber_pairs",
        lambda: write(**flags.parse(arguments)),
        interrupted="nothing was written",
    )


if __name__ == "__main__":
    sys.exit(main())
