"""Run other people's evaluations with EAH's file in their transformers, on tiny random checkpoints.

    python tests/real/run.py --checkouts FOLDER --venvs FOLDER --tokenizer llama.model [--only PAI]

Not collected by pytest and not in CI: it needs checkouts of repositories, of which nothing is kept
here. FOLDER has any of these as sub-folders, at these or other commits:

    LLaVA    haotian-liu/LLaVA  c121f04        shikra     shikras/shikra         ff79a4c
    VCD      DAMO-NLP-SG/VCD    d6568ff        MiniGPT-4  Vision-CAIR/MiniGPT-4  d94738a
    PAI      LALBJ/PAI          9bbd8bd        LAVIS      salesforce/LAVIS       506965b
    OPERA    shikiw/OPERA       61426ef

The second folder has an environment `transformers-VERSION` for each version that they use
(`bash scripts/test_matrix.sh VERSION` makes them in .venvs/). Neither folder is changed: everything
runs in copies.

Each script runs three times: stock, swapped (EAH's file, nothing set but EAH_LOG), and disabled
(EAH_DISABLE=1). It has to run; what its decoder computes must differ when EAH is there and be the
bitwise the same when it is disabled; and the tokens that EAH takes for the image must be those
that came from the model's projector, which is found without EAH. Prints a table for docs/swap.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import environments
import rows
import rows_opera
import rows_traps
from inputs import write_inputs
from row import STUBS, Row
from verdict import STATES, Run, failures, failures_to_find, line_of

HERE: Final = Path(__file__).resolve().parent
ROWS: Final = (*rows.ROWS, *rows_opera.ROWS, *rows_traps.ROWS)
SECONDS: Final = 900


def run(row: Row, state: str, python: Path, paths: list[Path], places: dict[str, Path]) -> Run:
    """Run a row's script in one state."""
    work, copy = places["work"], places["checkout"]
    record, log = work / f"{state}.jsonl", work / f"{state}-eah.jsonl"
    for file in (record, log):
        file.write_text("")
    settings = {"record": str(record), "projectors": row.projectors, "stubs": STUBS}
    (work / "settings.json").write_text(json.dumps(settings))
    script = HERE / row.script[1:] if row.script.startswith(".") else copy / row.script
    arguments = [argument.format(**places) for argument in row.arguments]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("EAH_")},
        **(row.settings if state == "swapped" else {}),
        **({"EAH_DISABLE": "1"} if state == "disabled" else {}),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "HF_HUB_OFFLINE": "1",
        "EAH_LOG": str(log),
    }
    calls = [[str(HERE / "bootstrap.py"), str(work / "settings.json"), str(script), *arguments]]
    if row.after:
        after = [argument.format(**places) for argument in row.after]
        calls.append([str(copy / after[0]), *after[1:]])
    output, code = "", 0
    for call in calls:
        if code == 0:
            done = subprocess.run(
                [str(python), *call],
                cwd=copy / row.start,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SECONDS,
            )
            output, code = output + done.stdout, done.returncode
    (work / f"{state}.log").write_text(output)
    lines = ([json.loads(line) for line in file.read_text().splitlines()] for file in (record, log))
    return Run(code, output, *lines)


def three_states(row: Row, options: argparse.Namespace, work: Path) -> dict[str, Run]:
    """Run a row's script stock, swapped and disabled."""
    python = environments.interpreter(options.venvs, row.transformers)
    extras = environments.extras(options.work, python)
    write_inputs(work, options.tokenizer)
    copy = environments.checkout(row, options.checkouts, work)
    places = {"work": work, "checkout": copy, "checkouts": options.checkouts.resolve()}
    paths = [*(copy / path for path in row.paths), extras]
    vendored = [] if row.vendored is None else [copy / row.vendored]
    runs = {"stock": run(row, "stock", python, [*vendored, *paths], places)}
    site = environments.swapped(row, python, copy, work)
    if site is not None:
        vendored = [site]
    for state in STATES[1:]:
        runs[state] = run(row, state, python, [*vendored, *paths], places)
    return runs


def main() -> int:
    """Run the rows that were asked for; print the table; return 1 if any is wrong, or none ran."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("checkouts", "venvs", "tokenizer"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "eah-real")
    parser.add_argument("--only", default="", help="rows whose name has this text")
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True, cwd=HERE)
    head = [
        f"Run on {datetime.date.today()} at {commit.strip()}.",
        "",
        "| script | transformers | image tokens | to set | swapped |",
        "|---|---|---|---|---|",
    ]
    table, failed = [], 0
    for row in ROWS:
        if options.only.lower() not in row.name.lower():
            continue
        if missing := environments.missing(row, options.checkouts):
            print(f"{row.name}: left out, as there is no {missing}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            runs = three_states(row, options, Path(folder))
        wrong = failures(row, runs) + failures_to_find(row, options.checkouts)
        failed += bool(wrong)
        print(f"{row.name}: {'; '.join(wrong) or 'as it should be'}", file=sys.stderr)
        print("\n".join(runs["swapped"].said), file=sys.stderr)
        for state in STATES if wrong else ():
            if runs[state].code != 0:
                print(f"-- {state}\n{runs[state].output[-2000:]}", file=sys.stderr)
        table.append(line_of(row, runs, wrong))
    print("\n".join(head + table))
    return int(failed > 0 or not table)


if __name__ == "__main__":
    sys.exit(main())
