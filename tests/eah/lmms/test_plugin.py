"""The plug-in of lmms-eval, with a stand-in of lmms-eval."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import eah
from tests.eah import tiny
from tests.eah.lmms import stand_in
from tests.eah.lmms.stand_in import ConfigurableTask, Instance, LlavaHf

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = {"layers": 1, "threshold": 0.01}


@pytest.fixture
def classes(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return `eah.lmms.classes` beside the stand-in, as if it was never imported."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.startswith("eah.lmms")]:
            del sys.modules[name]

    prepare = ConfigurableTask._prepare_model_specific_config
    forget()
    for name, module in stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    yield importlib.import_module("eah.lmms.classes")
    forget()
    ConfigurableTask._prepare_model_specific_config = prepare  # type: ignore[method-assign]
    del eah.lmms


def document(seed: int) -> dict[str, torch.Tensor]:
    """Return a prompt about a picture of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        given = dict(tiny.image_prompt())
        given["pixel_values"] = torch.randn(given["pixel_values"].shape)
    return given


def ask(model: Any, count: int = 5) -> list[str]:
    """Return the answers to so many documents."""
    model.task_dict["task"] = {"test": [document(seed) for seed in range(count)]}
    requests = [
        Instance("generate_until", (str(n), lambda doc: doc, {}, n, "task", "test"))
        for n in range(count)
    ]
    return list(model.generate_until(requests))


def stopped(make: Any, *values: Any, **given: Any) -> str:
    """Return the sentence that ends lmms-eval."""
    with pytest.raises(SystemExit) as end:
        make(*values, **given)
    assert not isinstance(end.value, Exception)  # which lmms-eval would catch
    assert end.value.code == str(end.value)  # printed, and the exit status is 1
    assert "\n" not in str(end.value)
    return str(end.value)


def test_the_entry_point_leads_to_manifests_and_these_to_classes(classes: ModuleType) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    entry = re.search(r'entry-points."lmms_eval.models"\]\neah = "(.+):(.+)"\n', project)
    assert entry is not None
    module, name = entry.groups()
    found = {one.model_id: one for one in getattr(importlib.import_module(module), name)()}

    assert set(found) == {
        "eah_llava_hf", "eah_qwen2_5_vl", "eah_qwen3_vl", "eah_internvl", "eah_hf"
    }  # fmt: skip
    assert found["eah_internvl"].simple_class_path is None
    for path, simple in ((found["eah_llava_hf"].chat_class_path, False),
                         (found["eah_llava_hf"].simple_class_path, True),
                         (found["eah_hf"].chat_class_path, False),
                         (found["eah_hf"].simple_class_path, True)):  # fmt: skip
        where, _, what = path.rpartition(".")
        kind = getattr(importlib.import_module(where), what)
        assert issubclass(kind, stand_in.Lmms)
        assert kind.is_simple is simple
    assert classes.eah_llava_hf_chat is classes.eah_llava_hf_chat
    with pytest.raises(AttributeError, match="no attribute 'eah_internvl_simple'"):
        _ = classes.eah_internvl_simple


def test_answers_are_theirs_and_those_of_the_library(classes: ModuleType) -> None:
    theirs = LlavaHf()
    expected = ask(theirs)
    with eah.enabled(theirs.model, eah.EAHConfig(layers=(1,), threshold=0.01)):
        shared = ask(theirs)

    assert expected != shared
    assert ask(classes.eah_llava_hf_chat(arm="baseline")) == expected
    assert ask(classes.eah_llava_hf_chat(**SETTINGS)) == shared
    model = classes.eah_hf_simple.create_from_arg_string(
        "of=llava_hf,layers=1,threshold=0.01", {"batch_size": 1, "device": None}
    )
    assert isinstance(model, stand_in.SimpleLlavaHf)
    assert ask(model) == shared


def test_each_request_has_a_line_with_its_heads(classes: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "heads.jsonl"
    ask(classes.eah_llava_hf_chat(**SETTINGS, heads=str(path)))

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["doc_id"] for row in rows] == [4, 3, 2, 1, 0]  # in the order of answers
    theirs = LlavaHf()
    for row in rows:
        assert (row["task"], row["split"]) == ("task", "test")
        with eah.enabled(theirs.model, eah.EAHConfig(layers=(1,), threshold=0.01)) as handle:
            theirs.model(**document(row["doc_id"]))
            (layer,) = handle.report()
        assert row["layers"] == [
            {"layer": 1, "head": layer.head[0], "sinks": list(layer.counts[0]),
             "image_tokens": layer.image_tokens[0], "saturated": False, "skipped": None}
        ]  # fmt: skip
    assert len({tuple(row["layers"][0]["sinks"]) for row in rows}) > 1


def test_no_heads_file_is_written_over_or_shared(classes: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "heads.jsonl"
    first, second = (classes.eah_llava_hf_chat(**SETTINGS, heads=str(path)) for _ in range(2))
    ask(first)
    written = path.read_bytes()

    assert stopped(ask, second).startswith(f"eah: heads={path} exists, and may be of another run")
    before = LlavaHf.loaded
    make = classes.eah_llava_hf_chat
    assert f"heads={path} exists" in stopped(make, heads=str(path))
    assert "there is no folder" in stopped(make, heads=str(tmp_path / "no/heads.jsonl"))
    assert "set batch_size=1" in stopped(make, heads=str(tmp_path / "x"), batch_size=2)
    assert before == LlavaHf.loaded  # refused before a model is loaded
    assert path.read_bytes() == written
    ranked = importlib.import_module("eah.lmms.heads").HeadsFile(str(path), rank=2)
    assert ranked.path == tmp_path / "heads.rank2.jsonl"


def test_documents_may_be_read_ahead(classes: ModuleType, tmp_path: Path) -> None:
    heads = importlib.import_module("eah.lmms.heads").HeadsFile(str(tmp_path / "a.jsonl"))
    requests = [Instance("generate_until", (lambda doc: doc, n, "t", "s")) for n in (3, 8, 5)]
    first, second, third = heads.watch(requests)

    for one in (first, second):
        one.args[0](None)
    heads.write([])
    third.args[0](None)
    heads.write([])
    heads.write([])

    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["doc_id"] for row in rows] == [3, 8, 5]
    assert requests[0].args[0](1) == 1  # theirs stay as they were
    heads.finish()


def test_a_document_that_is_not_answered_by_itself_ends_the_run(
    classes: ModuleType, tmp_path: Path
) -> None:
    model = classes.eah_llava_hf_chat(**SETTINGS, heads=str(tmp_path / "a.jsonl"))

    requests = [Instance("generate_until", ("", lambda doc: doc, {}, 0, "task", "test"))]
    model.task_dict["task"] = {"test": [tiny.image_prompt()]}
    watched = model._eah_heads.watch(requests)
    watched[0].args[1](None)

    assert "1 documents were read but not answered one by one" in stopped(
        model.generate_until, requests
    )
    model._eah_heads._asked.clear()
    assert "but no document was read before it" in stopped(
        model.model.generate, **tiny.image_prompt(), max_new_tokens=1
    )


def test_a_generation_that_fails_ends_the_run(classes: ModuleType) -> None:
    for arm in ({"arm": "baseline"}, SETTINGS):
        model = classes.eah_llava_hf_chat(**arm)
        model.task_dict["task"] = {"test": [{**tiny.image_prompt(), "no_such": 1}]}
        request = Instance("generate_until", ("", lambda doc: doc, {}, 0, "task", "test"))
        assert "no answer could be generated: ValueError" in _first_line(model, request)


def _first_line(model: Any, request: Instance) -> str:
    with pytest.raises(SystemExit) as end:
        model.generate_until([request])
    return str(end.value).splitlines()[0]


def test_tasks_ask_as_they_ask_the_model_below(classes: ModuleType) -> None:
    assert ConfigurableTask("eah_llava_hf").prompt == "short"
    classes.eah_llava_hf_chat(arm="baseline")
    classes.eah_hf_chat.create_from_arg_string("of=llava_hf,arm=baseline")

    assert ConfigurableTask("eah_llava_hf").prompt == "long"
    assert ConfigurableTask("eah_hf").prompt == "long"
    assert ConfigurableTask("llava_hf").prompt == "long"
    assert ConfigurableTask("other").prompt == "short"


def test_what_can_not_be_done_is_refused(classes: ModuleType, tmp_path: Path) -> None:
    make = classes.eah_llava_hf_chat
    model = make(**SETTINGS, heads=str(tmp_path / "a.jsonl"))

    assert "(loglikelihood)" in stopped(model.loglikelihood, [1])
    assert "asks in rounds" in stopped(model.generate_until_multi_round, [1])
    assert make(arm="baseline").loglikelihood([1]) == [(0.0, False)]
    assert make().generate_until_multi_round([1]) == ["rounds"]
    assert "has no layer 9" in stopped(make, layers=9)
    of = classes.eah_hf_chat.create_from_arg_string
    assert "needs the name of lmms-eval's own model" in stopped(of, "layers=1")
    assert "did you mean 'llava_hf'?" in stopped(of, "of=lava_hf")
    assert "remote has no model; EAH needs a model of transformers" in stopped(of, "of=remote")
    with pytest.raises(AssertionError, match="Unexpected kwargs"):  # theirs refuses it
        make(zzz=1)


def test_without_lmms_eval_the_package_says_what_to_install() -> None:
    code = (
        "import sys, eah; assert 'eah.lmms' not in sys.modules\n"
        "from importlib import util\nutil.find_spec = lambda name: None\nimport eah.lmms"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.stderr.splitlines()[-1] == (
        "ImportError: eah.lmms is a plug-in of lmms-eval, which is not installed; run pip install "
        "'eah[lmms]'"
    )
