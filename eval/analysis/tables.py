"""The findings, as a table for a terminal and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.analysis.wording import count_noun
from eval.output.table import WIDTH, fit
from eval.stats.intervals import NONE

if TYPE_CHECKING:
    from eval.analysis.analysed import Analysed
    from eval.analysis.claim import Claim, LayerClaim
    from eval.analysis.maps import HeadMap


def findings_text(found: Sequence[Analysed]) -> str:
    """Return the findings for a terminal: sentences, then a table of layers, model by model."""
    blocks = []
    for one in found:
        found_map = one.map
        blocks.append(
            f"vision sinks of {found_map.model}: {count_noun(found_map.prompts, 'prompt')} about "
            f"{count_noun(found_map.pictures, 'picture')}, "
            f"threshold {found_map.threshold_text(0)}"
        )
        if one.claim is not None:
            blocks.append(_wrap(one.claim.sentence()))
        blocks.append(_wrap(found_map.sentence()))
        blocks.append(f"{fit(*layer_table(found_map, one.claim))}\n{_legend(one.claim)}")
        blocks += [_wrap(f"note: {note.removeprefix('note: ')}") for note in one.notes]
    return "\n\n".join(blocks)


def layer_table(found: HeadMap, claim: Claim | None) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: one layer each, in percent of the image tokens or of the heads."""
    gammas = [f">={gamma:g}" for gamma in found.gammas]
    header = ["layer", "density", "densest head", "its", *gammas]
    claims = {} if claim is None else {one.layer: one for one in claim.layers}
    if claims:
        header += ["without - with", "p (Holm)"]
    rows = []
    for at, layer in enumerate(found.layers):
        density, often = found.density[0, at], found.densest[0, at]
        head = int(np.nanargmax(often))
        is_any = bool(often[head] > 0)
        shown = f"{head} in {100 * often[head]:.0f} %" if is_any else NONE
        row = [
            str(layer),
            _percent(float(np.nanmean(density))),
            shown,
            _percent(float(density[head])) if is_any else NONE,
            *(_percent(float(share)) for share in found.dense_share[0, :, at]),
        ]
        if claims:
            row += _claim_cells(claims[layer])
        rows.append(row)
    return header, rows


def _legend(claim: Claim | None) -> str:
    """Return what the columns mean."""
    text = (
        "density: sinks in % of the image tokens, mean over heads; densest head: the head that is "
        "densest most often, in % of the prompts, and its density; >=: % of the heads that have at "
        "least that density"
    )
    if claim is not None:
        text += (
            "; without - with: the densest head's density over answers without hallucination minus "
            "that over answers with one, in points, with a 95 % interval over pictures"
        )
    return _wrap(text)


def _claim_cells(one: LayerClaim) -> list[str]:
    p_value = NONE if isnan(one.p_holm) else f"{one.p_holm:.3f}"
    return [one.difference.points(), p_value]


def as_dict(found: Sequence[Analysed]) -> dict[str, Any]:
    """Return all numbers, for `sinks.json` and `--json`."""
    return {
        "models": [
            {
                "run": str(one.folder),
                **dict(one.facts),
                "notes": list(one.notes),
                "map": _plain(asdict(one.map)),
                "claim": None
                if one.claim is None
                else {"sentence": one.claim.sentence(), **_plain(asdict(one.claim))},
                "ablations": [_plain(asdict(ablation)) for ablation in one.ablations],
            }
            for one in found
        ]
    }


def _plain(value: Any) -> Any:
    """Return numbers, lists and objects of JSON, which has null where there is no number."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: _plain(of) for name, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(of) for of in value]
    return None if isinstance(value, float) and isnan(value) else value


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _wrap(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ")
