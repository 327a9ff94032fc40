"""docs/decoding.md: every method is in it, what it says of each is the code's, its snippets run."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

import eah
import models
from eval import pope_eval
from eval.run.arms import ArmDefaults, resolve
from models.decoding.attention_method import AttentionMethod
from models.decoding.attention_rows import ChangedRows
from models.decoding.base import DecodingMethod, MethodError
from models.generation import Decoding
from models.methods import read_methods
from scripts.bench.deep_vlm import make_deep_vlm
from scripts.bench.methods import methods_of
from scripts.scenes.make import write_scenes
from tests.models.toys import pictures

ROOT = Path(models.__file__).resolve().parents[1]
PAGE = (ROOT / "docs/decoding.md").read_text(encoding="utf-8")
DECODINGS = {
    "greedy": Decoding(4),
    "sampling": Decoding(4, do_sample=True),
    "beams": Decoding(4, num_beams=3),
}
WHERE = {
    ChangedRows.LAST: "last row",
    ChangedRows.AFTER_IMAGE: "rows after the image",
}


def rows() -> dict[str, dict[str, str]]:
    """Return the rows of the table by arm, with cells by title."""
    table = PAGE.split("## All methods")[1].split("\n\n")[1].splitlines()
    titles, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    found = [dict(zip(titles, cells, strict=True)) for cells in lines]
    return {row["arm"].strip("`"): row for row in found}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def vlm() -> models.VLM:
    vlm = make_deep_vlm(torch.device("cpu"), width=64, side=4)
    vlm.model.config.image_token_id = 31999  # LLaVA's own is behind the vocabulary
    return vlm


def methods() -> dict[str, DecodingMethod]:
    return methods_of(make_deep_vlm(torch.device("cpu"), width=64, side=1))


def test_every_method_has_a_row_and_a_rule() -> None:
    rules = PAGE.split("## The rules")[1].split("## In your own code")[0]
    headings = "".join(re.findall(r"^### (.*)$", rules, flags=re.MULTILINE))

    assert set(rows()) == {"baseline", "eah", *read_methods()}
    for name in read_methods():
        title = name.replace("adhh", "ad-hh")
        assert title in headings.lower(), name


@pytest.mark.parametrize("name", sorted(rows()))
def test_decoding_and_prefix_reuse_are_the_code_s(name: str, vlm: models.VLM) -> None:
    cells, method = rows()[name], methods_of(vlm).get(name)
    allowed = []
    for how, decoding in DECODINGS.items():
        try:
            if method is not None:
                method.check(decoding)
            allowed.append(how)
        except MethodError:
            continue

    assert cells["decoding"] == ", ".join(allowed)
    assert cells["prefix reuse"] == ("yes" if vlm.can_use_cached_prefix(method) else "no")


@pytest.mark.parametrize("name", sorted(set(rows()) - {"baseline", "eah"}))
def test_layers_rows_and_what_goes_with_eah_are_the_code_s(name: str, vlm: models.VLM) -> None:
    cells, method = rows()[name], methods_of(vlm)[name]
    assert cells["with EAH"].split(",")[0] == f"`{name}+eah`"
    if not isinstance(method, AttentionMethod):
        return

    held = list(method.changed_layers(range(32), ()))
    stated = cells["where"].split(";")[0]
    if stated == "layers 2 to the last":
        expected = list(range(2, 32))
    elif stated == "all layers but EAH's":
        expected = list(range(32))
        assert list(method.changed_layers(range(32), (1,))) == [0, *range(2, 32)]
    else:
        first, last = map(int, re.findall(r"\d+", stated)[:2])
        expected = list(range(first, last + 1))
    if name == "adhh":
        assert (held[0], held[-1]) == (expected[0], expected[-1])
    else:
        assert held == expected
    assert WHERE[method.rows] in cells["where"]
    with eah.enabled(vlm.model, eah.EAHConfig(layers=(1,))):
        vlm.check_method(method)
    if name != "spin":
        with (
            eah.enabled(vlm.model, eah.EAHConfig(layers=(held[0],))),
            pytest.raises(MethodError, match="EAH both change layer"),
        ):
            vlm.check_method(method)


def test_times_are_those_that_were_measured() -> None:
    measured = json.loads((ROOT / "benchmarks/methods-cpu.json").read_text())
    times = [row for row in measured["rows"] if row["quantity"] == "time, ms"]
    about = list(dict.fromkeys(row["measured"] for row in times))
    ratios = {(row["arm"], row["measured"]): median(row["ratios"]) for row in times}

    assert len(about) == 2
    for name in set(rows()) - {"baseline", "opera"}:
        expected = ", ".join(f"{ratios[name, title]:.2f}" for title in about)
        assert rows()[name]["cost: passes; time"].endswith(f"; {expected}"), name
    times_of_opera = [re.search(r"is ([\d.]+)", line) for line in measured["compared"]]
    expected = ", ".join(found[1] for found in times_of_opera if found)
    assert rows()["opera"]["cost: passes; time"] == f"2; {expected} of beam search"
    assert f"Medians of {len(times[0]['ratios'])} interleaved rounds" in " ".join(PAGE.split())


def test_every_arm_that_is_named_is_one() -> None:
    named = sorted(set(re.findall(r"`(\w+@[\w=.,+-]+)`", PAGE)))
    expected = {
        "hgai@causal=false": ("causal", False),
        "vaf@signed=false": ("signed", False),
        "var@released=true": ("released", True),
        "adhh@batch_sum=true": ("batch_sum", True),
        "spin@released=true": ("released", True),
        "opera@parity=true": ("parity", True),
    }

    assert set(expected) <= set(named)
    assert len(named) >= 14
    for arm in named:
        method = resolve(arm, ArmDefaults()).decoding()
        setting, value = expected.get(arm, (None, None))
        assert setting is None or getattr(method, setting) == value
        default = type(method)()
        assert method != default, f"{arm} changes nothing"


def test_defaults_that_are_stated_are_the_code_s() -> None:
    text = PAGE.split("## The rules")[1].split("## In your own code")[0]
    stated = 0
    for section in text.split("\n### ")[1:]:
        heading = section.splitlines()[0]
        name = heading.lower().replace("-", "").split(",")[0]
        if "," in heading:
            continue
        default, fences = type(methods()[name])(), re.findall(r"`(\w+)=([\d.]+)`", section)
        for setting, value in fences:
            assert getattr(default, setting) == float(value), (name, setting)
            stated += 1
    assert stated >= 12


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:configs|models|tests|scripts)/[\w/.]+)`", PAGE))
    linked = {f"docs/{path}" for path in re.findall(r"\]\(([\w./-]+)\)", PAGE)}

    assert len(named) >= 5
    assert [path for path in named | linked if not (ROOT / path).resolve().exists()] == []


def test_the_command_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With tiny-llava, whose settings of VAR and AD-HH nobody has published."""
    write_scenes(tmp_path, count=3, seed=1)
    joined = blocks("bash")[1].replace("\\\n", " ")  # the one of 7B models
    (line,) = (line for line in joined.splitlines() if not line.startswith("#"))
    swapped = {"llava-1.5": "tiny-llava", "data/COCO/val2014": str(tmp_path / "val2014"), "0": "-1"}
    swapped |= {"var": "var@sink_dims=1+3,tau=5", "adhh": "adhh@heads=2h0"}
    arguments = [swapped.get(word, word) for word in shlex.split(line)[2:]]
    arguments += ["--build-from", str(tmp_path / "annotations/instances_val2014.json")]

    assert pope_eval.main([*arguments, "--output-dir", str(tmp_path), "--limit", "4"]) == 0

    shown = capsys.readouterr().out
    arms = shlex.split(line)[shlex.split(line).index("--method") + 1 :]
    assert {*read_methods(), "baseline", "eah"} - {"opera", "vcd", "dola", "pai"} <= set(arms)
    assert all(f"| {swapped.get(arm, arm)} " in shown for arm in arms)


@dataclass(frozen=True)
class _Asked:
    """A question about a picture as transformers takes it."""

    inputs: dict[str, Any]
    image: torch.Tensor


@pytest.fixture(scope="module")
def asked(vlm: models.VLM) -> _Asked:
    config = vlm.model.config
    ids: list[int] = []
    for id_ in vlm.prompt_ids("Is there a cat in the image?"):
        ids += [config.image_token_id] * vlm.num_image_tokens if id_ == -200 else [id_]
    inputs = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "pixel_values": vlm.preprocess(pictures(1)),
        "max_new_tokens": 4,
        "output_scores": True,
        "return_dict_in_generate": True,
    }
    return _Asked(inputs, inputs["input_ids"] == config.image_token_id)


def test_the_snippet_for_a_model_of_ones_own_runs(vlm: models.VLM, asked: _Asked) -> None:
    scope: dict[str, Any] = {"model": vlm.model, "inputs": asked.inputs}
    plain = vlm.model.generate(**asked.inputs).scores[0]

    exec(blocks("python")[0], scope)

    assert scope["image_mask"].sum() == vlm.num_image_tokens
    assert not torch.equal(scope["output"].scores[0], plain)
    assert torch.equal(vlm.model.generate(**asked.inputs).scores[0], plain)


def test_the_snippet_for_a_wrapper_runs(vlm: models.VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "load", lambda _: vlm)
    scope = {"picture": pictures(1)[0]}

    exec(blocks("python")[1], scope)

    assert scope["answer"].tokens == 10
    assert not eah.is_enabled(vlm.model)


def test_the_method_of_ones_own_doubles_scores_on_the_image(vlm: models.VLM, asked: _Asked) -> None:
    scope = {"dataclass": dataclass, "AttentionMethod": AttentionMethod, "ChangedRows": ChangedRows}
    exec(blocks("python")[2], scope)
    method = scope["Doubled"]()
    seen: list[torch.Tensor] = []
    edit = type(method).edit

    def both(self: Any, given: Any) -> torch.Tensor:
        changed = edit(self, given)
        scores = given.scores()[:, :, 0]
        scores[:, :, given.image[0]] *= 2
        expected = torch.einsum("rhk,rhkd->rhd", scores.softmax(-1), given.call.value)
        torch.testing.assert_close(changed[:, 0], expected)
        seen.append(changed)
        return changed

    type(method).edit = both
    with method.applied(vlm.model, asked.image) as processors:
        vlm.model.generate(**asked.inputs, logits_processor=processors)

    assert len(seen) == 2 * 4  # layers, tokens
