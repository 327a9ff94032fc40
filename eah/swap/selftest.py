"""Prove on a tiny model that EAH acts in a swapped transformers, and that disabling it undoes it.

    python -m eah.swap selftest [--python PATH | --site-packages PATH] [--model llama]

The model has random weights and runs on the CPU, in a process of the given interpreter. It uses
neither the settings nor the search path of the caller. Exit status: 0 if all proofs hold, 1 if one
does not, 2 if there is nothing to test.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eah.errors import EAHError
from eah.settings import VARIABLES
from eah.swap.content import FAMILY
from eah.swap.locate import interpreter_of, package_in
from eah.swap.selftest_program import MARK

PROGRAM: Final = Path(__file__).with_name("selftest_program.py")
FAILED: Final = 1
BAD_INPUT: Final = 2
TIMEOUT_S: Final = 600
# These change which modules are found, or what a process prints.
REMOVED: Final = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONWARNINGS", "PYTHONINSPECT")


class SelftestError(EAHError):
    """There is nothing that can be tested."""


@dataclass(frozen=True, slots=True)
class Install:
    """A transformers install to test.

    Attributes:
        python: Interpreter to run.
        site_packages: Folder whose packages it finds first; None for only its own.
        options: The options that name the install, for `python -m eah.swap install`.
    """

    python: Path
    site_packages: Path | None
    options: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="eah.swap selftest",
        description="Prove on a tiny model that EAH acts, and that disabling it undoes it.",
    )
    parser.add_argument("--model", default=FAMILY, help="family of the file (default: llama)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--python", type=interpreter_of, help="interpreter whose transformers to test"
    )
    where.add_argument(
        "--site-packages", type=Path, help="folder with transformers, or a checkout of it"
    )
    given = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        install = _install(given.python, given.site_packages, given.model)
        results, last_words = run_program(install, given.model)
        lines, failures = describe(results, last_words, install)
    except EAHError as error:
        print(f"eah: error: {error}", file=sys.stderr)
        return BAD_INPUT
    print("\n".join(lines))
    seconds = time.monotonic() - start
    print(f"{'all proofs hold' if not failures else 'FAILED'}; {seconds:.1f} s")
    return FAILED if failures else 0


def _install(python: Path | None, site_packages: Path | None, family: str) -> Install:
    options = "" if family == FAMILY else f" --model {shlex.quote(family)}"
    if site_packages is not None:
        folder, where = package_in(site_packages).parent, shlex.quote(str(site_packages))
        return Install(Path(sys.executable), folder, f"{options} --site-packages {where}")
    if python is not None:
        options += f" --python {shlex.quote(str(python))}"
    return Install(python or Path(sys.executable), None, options)


def run_program(install: Install, family: str) -> tuple[list[dict[str, Any]], str]:
    """Run the proofs in the given interpreter.

    Returns:
        Its results, and the last line that it wrote to stderr if it failed ("" if it did not).
    Raises:
        SelftestError: If the interpreter can't be run.
    """
    environment = clean_environment(os.environ)
    if install.site_packages is not None:
        environment["PYTHONPATH"] = str(install.site_packages.resolve())
    # `-c` searches the current folder for modules, so it is an empty one.
    with tempfile.TemporaryDirectory(prefix="eah-selftest-") as empty:
        try:
            done = subprocess.run(
                [install.python.absolute(), "-c", PROGRAM.read_text(encoding="utf-8"), family],
                env=environment, cwd=empty, capture_output=True, text=True, errors="replace",
                timeout=TIMEOUT_S,
            )  # fmt: skip
        except OSError as error:
            raise SelftestError(
                f"--python {install.python} can't be run ({error.strerror}); name an interpreter"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SelftestError(
                f"{install.python} did not finish within {TIMEOUT_S} s; try again on a machine "
                "that is less busy"
            ) from error
    results = [
        json.loads(line[len(MARK) :]) for line in done.stdout.splitlines() if line.startswith(MARK)
    ]
    if done.returncode == 0:
        return results, ""
    return results, (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


def clean_environment(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """Return an environment without EAH's settings, and without what changes the search path."""
    settings = {name for names in VARIABLES.values() for name in names}
    cleaned = {
        name: value
        for name, value in environment.items()
        if name not in settings and name not in REMOVED and not name.startswith("EAH_")
    }
    return {**cleaned, "EAH_QUIET": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def describe(
    results: Sequence[dict[str, Any]], last_words: str, install: Install
) -> tuple[list[str], int]:
    """Return a line per proof, and how many failed.

    Raises:
        SelftestError: If the interpreter lacks a package or the family.
    """
    facts = {key: value for result in results for key, value in result.items()}
    if "missing" in facts:
        raise SelftestError(
            f"{install.python} has no {facts['missing']}, or one of its packages is missing; "
            "install it there, or name another interpreter with --python"
        )
    if "transformers" not in facts:
        raise SelftestError(
            f"{install.python} can't import torch and transformers ({last_words or 'no output'}); "
            "repair that install, or name another interpreter with --python"
        )
    if "no_family" in facts:
        raise SelftestError(
            f"transformers {facts['transformers']} has no {facts['no_family']}; --model is the "
            "name of one of its folders in models/, such as llama or qwen2"
        )
    if "unknown" in facts:
        raise SelftestError(
            f"{facts['unknown']} has no v_proj or no o_proj, which the proofs need; --model llama, "
            "mistral and qwen2 can be tested"
        )
    what = f"EAH {facts['eah']}" if "eah" in facts else "transformers' own"
    if "eah" not in facts and "not_swapped" not in facts:
        what = "EAH's"
    lines = [
        f"torch {facts['torch']}, transformers {facts['transformers']}: {facts['file']} is {what}"
    ]
    if "not_swapped" in facts:
        advice = f"run python -m eah.swap install{install.options}"
        return [*lines, f"FAILED  EAH's file is not installed; {advice}"], 1
    proofs = [result for result in results if "proof" in result]
    for proof in proofs:
        mark = "ok    " if proof["holds"] else "FAILED"
        lines.append(f"{mark}  {proof['proof']} ({proof['detail']})")
    failures = sum(not proof["holds"] for proof in proofs)
    if last_words or not proofs:
        why = last_words or "its process ended early"
        lines.append(f"FAILED  the model there could not be built or run: {why}")
        failures += 1
    return lines, failures
