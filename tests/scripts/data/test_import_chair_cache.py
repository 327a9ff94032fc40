"""A cache gives its objects, and no file gets to run anything."""

from __future__ import annotations

import copyreg
import json
import os
import pickle
import re
import subprocess
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.tasks.chair import truth as chair_truth
from scripts.data.import_chair_cache import ADMITTED, main, read_objects

ROOT = Path(__file__).resolve().parents[3]
PROTOCOLS = range(6)
OBJECTS = {0: set[str](), 42: {"dog"}, 10**12 - 1: {"chair", "dining table", "cup"}}
DEEP = b")" + b"\x85" * 20_000
# What public tools do at the end of `chair.py`; one kind of container each.
TOOL = """
import pickle, sys
from collections import defaultdict

class CHAIR(object):
    def __init__(self, kind):
        make = {"list": list, "set": set, "dict": set}[kind]
        self.imid_to_objects = {} if kind == "dict" else defaultdict(make)
        for image_id, names in OBJECTS.items():
            self.imid_to_objects[image_id] = make(names)
        self.coco_path = "/\\u00e9t\\u00e9/COCO"
        self.mscoco_objects = ["dog", "puppy"]
        self.inverse_synonym_dict = {"dog": "dog", "puppy": "dog"}
        self.double_word_dict = {"hot dog": "hot dog"}
        self.counts = defaultdict(int, dog=1)
        self.caps, self.nothing, self.pairs = None, 0.5, [("a", True)]

for kind in ("list", "set", "dict"):
    for protocol in range(6):
        with open(f"{sys.argv[1]}/{kind}-{protocol}.pkl", "wb") as file:
            pickle.dump(CHAIR(kind), file, protocol)
"""
# Written by Python 2.7: `pickle.dumps(evaluator, 0)`, `cPickle.dumps(evaluator, 2)`, and protocols
# 0 and 1 of a class without `(object)`. Texts are of either kind, an id is a long.
PYTHON_2 = {
    "new-style, protocol 0": b"ccopy_reg\n_reconstructor\np0\n(c__main__\nCHAIR\np1\nc__builtin__\n"
    b"object\np2\nNtp3\nRp4\n(dp5\nS'imid_to_objects'\np6\nccollections\ndefaultdict\np7\n"
    b"(c__builtin__\nlist\np8\ntp9\nRp10\nL73L\nc__builtin__\nset\np11\n((lp12\nVchair\np13\natp14\n"
    b"Rp15\nsI42\ng11\n((lp16\nS'dog'\np17\natp18\nRp19\nssS'coco_path'\np20\nS'/d\\xc3\\xa9'\np21\n"
    b"sb.",
    "new-style, protocol 2": b"\x80\x02c__main__\nCHAIR\nq\x00)\x81q\x01}q\x02(U\x0fimid_to_objects"
    b"q\x03ccollections\ndefaultdict\nq\x04c__builtin__\nlist\nq\x05\x85q\x06Rq\x07(\x8a\x01I"
    b"c__builtin__\nset\nq\x08]q\tX\x05\x00\x00\x00chairq\na\x85q\x0bRq\x0cK*h\x08]q\rU\x03dogq\x0e"
    b"a\x85q\x0fRq\x10uU\tcoco_pathq\x11U\x04/d\xc3\xa9q\x12ub.",
    "old-style, protocol 0": b"(i__main__\nCHAIR\np0\n(dp1\nS'imid_to_objects'\np2\nccollections\n"
    b"defaultdict\np3\n(c__builtin__\nlist\np4\ntp5\nRp6\nL73L\nc__builtin__\nset\np7\n((lp8\n"
    b"Vchair\np9\natp10\nRp11\nsI42\ng7\n((lp12\nS'dog'\np13\natp14\nRp15\nssS'coco_path'\np16\n"
    b"S'/d\\xc3\\xa9'\np17\nsb.",
    "old-style, protocol 1": b"(c__main__\nCHAIR\nq\x00oq\x01}q\x02(U\x0fimid_to_objectsq\x03"
    b"ccollections\ndefaultdict\nq\x04(c__builtin__\nlist\nq\x05tq\x06Rq\x07(L73L\nc__builtin__\n"
    b"set\nq\x08(]q\tX\x05\x00\x00\x00chairq\natq\x0bRq\x0cK*h\x08(]q\rU\x03dogq\x0eatq\x0fRq\x10u"
    b"U\tcoco_pathq\x11U\x04/d\xc3\xa9q\x12ub.",
}


class CHAIR:
    """Pickles as a cache of whatever attributes it is given."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def cache(rows: Any) -> bytes:
    return pickle.dumps(CHAIR(imid_to_objects=rows))


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("caches")
    tool = folder / "chair.py"
    tool.write_text(f"OBJECTS = {OBJECTS!r}\n{TOOL}", encoding="utf-8")
    subprocess.run([sys.executable, tool, folder], check=True)
    return folder


def refusal(content: bytes) -> str:
    with pytest.raises(EvaluationError) as raised:
        read_objects(Path("chair.pkl"), content)
    return str(raised.value)


@pytest.mark.parametrize("kind", ["list", "set", "dict"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_cache_gives_its_objects(genuine: Path, kind: str, protocol: int) -> None:
    path = genuine / f"{kind}-{protocol}.pkl"

    assert read_objects(path, path.read_bytes()) == OBJECTS


@pytest.mark.parametrize("content", PYTHON_2.values(), ids=PYTHON_2)
def test_a_cache_of_python_2_gives_its_objects(content: bytes) -> None:
    assert read_objects(Path("chair.pkl"), content) == {42: {"dog"}, 73: {"chair"}}


@pytest.mark.parametrize("module", ["chair", "eval.chair", "no.such.module", "os"])
@pytest.mark.parametrize("protocol", [0, 2])
def test_the_class_may_come_from_any_module(genuine: Path, module: str, protocol: int) -> None:
    content = (genuine / f"set-{protocol}.pkl").read_bytes()
    moved = content.replace(b"c__main__\nCHAIR\n", f"c{module}\nCHAIR\n".encode())

    assert moved != content
    assert read_objects(Path("chair.pkl"), moved) == OBJECTS


def test_the_file_written_is_a_ground_truth(
    genuine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "folder" / "truth.json.gz"

    assert main([str(genuine / "list-4.pkl"), "--output", str(output)]) == 0

    truth = chair_truth.read(output)
    assert truth.objects == OBJECTS
    assert truth.analyzer is not None
    assert re.fullmatch(r"the tool that wrote list-4\.pkl, SHA-256 [0-9a-f]{12}", truth.analyzer)
    assert truth.inputs is None
    assert capsys.readouterr().out == (f"3 image(s) with 1.33 objects each, written to {output}\n")


def test_the_script_runs_by_itself(genuine: Path, tmp_path: Path) -> None:
    output = tmp_path / "truth.json"
    command = [sys.executable, "scripts/data/import_chair_cache.py", str(genuine / "set-5.pkl")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    subprocess.run([*command, "--output", str(output)], check=True, cwd=ROOT, env=environment)

    assert json.loads(output.read_text())["objects"]["42"] == ["dog"]


def test_a_cache_of_cocos_objects_comes_back(shared: Path, tmp_path: Path) -> None:
    original = chair_truth.read(shared / "coco" / "chair_ground_truth.json.gz")
    rows: dict[int, set[str]] = defaultdict(set)
    rows.update({image_id: set(names) for image_id, names in original.objects.items()})
    (tmp_path / "chair.pkl").write_bytes(cache(rows))

    assert main([str(tmp_path / "chair.pkl"), "--output", str(tmp_path / "truth.json.gz")]) == 0

    assert len(original.objects) > 100_000
    assert chair_truth.read(tmp_path / "truth.json.gz").objects == original.objects


def attacked(place: str, call: Call) -> Any:
    """Return what is in a file with a call somewhere."""
    return {
        "alone": call,
        "attribute": CHAIR(imid_to_objects={1: ["dog"]}, mscoco_objects=[call]),
        "objects": CHAIR(imid_to_objects=call),
        "picture": CHAIR(imid_to_objects=defaultdict(list, {1: ["dog"], 2: call})),
        "name": CHAIR(imid_to_objects={1: ["dog"], 2: ["dog", call]}),
        "id": CHAIR(imid_to_objects={1: ["dog"], call: ["dog"]}),
        "factory": CHAIR(imid_to_objects=Call(defaultdict, call)),
        "call": CHAIR(imid_to_objects=Call(dict, call)),
    }[place]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "place", ["alone", "attribute", "objects", "picture", "name", "id", "factory", "call"]
)
def test_no_call_runs_wherever_it_stands(place: str, protocol: int, tmp_path: Path) -> None:
    marker, output = tmp_path / "ran", tmp_path / "truth.json"
    content = pickle.dumps(attacked(place, Call(os.mkdir, str(marker))), protocol)
    (tmp_path / "chair.pkl").write_bytes(content)

    assert main([str(tmp_path / "chair.pkl"), "--output", str(output)]) == 2

    assert not marker.exists()
    assert not output.exists()
    assert refusal(content) == (
        f"chair.pkl asks for {os.mkdir.__module__}.mkdir, which a CHAIR cache does not need; it "
        "was not run, do not trust this file"
    )
    with suppress(TypeError):
        pickle.loads(content)
    assert marker.exists(), "the attack is none"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Call(os.system, "true"), f"{os.system.__module__}.system"),
        (Call(eval, "1"), "builtins.eval"),
        (Call(exec, "1"), "builtins.exec"),
        (Call(open, "x"), f"{open.__module__}.open"),
        (Call(__import__, "os"), "builtins.__import__"),
        (Call(getattr, dict, "fromkeys"), "builtins.getattr"),
        (Call(subprocess.Popen, "true"), "subprocess.Popen"),
        (Call(str, b"", "rot13"), "builtins.str"),
        (Call(partial, int), "functools.partial"),
        (Call(attrgetter, "x"), "operator.attrgetter"),
        (Call(copyreg.add_extension, "os", "system", 1), "copyreg.add_extension"),
        (Call(OrderedDict), "collections.OrderedDict"),
        (Call(dict, Path("x")), f"{Path().__module__}.{type(Path()).__name__}"),
    ],
)
def test_what_a_cache_does_not_need_is_named(call: Call, name: str) -> None:
    content = pickle.dumps(CHAIR(imid_to_objects={1: ["dog"]}, more=call))

    assert f"chair.pkl asks for {name}, which a CHAIR cache does not need" in refusal(content)


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'true'\no.", "os.system"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
        (b"ccopy_reg\n__newobj__\n(c__builtin__\ndict\ntR.", "copy_reg.__newobj__"),
        (b"\x80\x04\x8c\x08builtins\x8c\x0ddict.fromkeys\x93.", "builtins.dict.fromkeys"),
        (b"\x80\x04\x8c\x08__main__\x8c\x0eCHAIR.__init__\x93.", "__main__.CHAIR.__init__"),
        (b"\x80\x04\x8c\x02os\x8c\x0bpath.CHAIR.\x93.", "os.path.CHAIR."),
        (b"cno.such\nmodule\n.", "no.such.module"),
        (b"cos\nsys\x1b[2J\rtem\n.", r"os.sys\x1b[2J\rtem"),
        (b"Psomewhere\n.", "an object outside of it"),
        (b"\x80\x02U\x01xQ.", "an object outside of it"),
    ],
)
def test_what_no_pickler_writes_is_named_too(content: bytes, asked: str) -> None:
    assert f"chair.pkl asks for {asked}, which a CHAIR cache does not need" in refusal(content)


def test_registered_extensions_are_refused() -> None:
    content = b"\x80\x02\x82\xf0(S'true'\ntR."
    assert "unregistered extension code 240" in refusal(content)
    copyreg.add_extension("os", "system", 240)
    try:
        assert "asks for os.system" in refusal(content)
    finally:
        copyreg.remove_extension("os", "system", 240)


@pytest.mark.parametrize("stated", [b"}S'x'\nI1\ns", b"(N}S'x'\nI1\nst"], ids=["dict", "slots"])
@pytest.mark.parametrize("name", ADMITTED, ids=".".join)
def test_no_class_can_be_changed(name: tuple[str, str], stated: bytes) -> None:
    module, attribute = name
    before = dict(vars(ADMITTED[name]))

    message = refusal(f"c{module}\n{attribute}\n".encode() + stated + b"b.")

    assert "chair.pkl is not a complete CHAIR cache (" in message
    assert dict(vars(ADMITTED[name])) == before


@pytest.mark.parametrize(
    "arguments", [(list, object, None), (CHAIR, dict, None), (CHAIR, object, "x"), (CHAIR,), (1,)]
)
def test_nothing_but_an_evaluator_is_made(arguments: tuple[Any, ...]) -> None:
    reconstructed = Call(copyreg._reconstructor, *arguments)  # type: ignore[attr-defined]

    assert "it makes something else than a CHAIR evaluator" in refusal(pickle.dumps(reconstructed))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"",
            "is not a complete CHAIR cache (EOFError: Ran out of input); it may have been cut off",
        ),
        (b"<html>", "(UnpicklingError: invalid load key, '<'.)"),
        (b"\xff\xd8\xff", r"(UnpicklingError: invalid load key, '\xff'.)"),
        (cache({1: ["dog"]})[:40], "(UnpicklingError: pickle data was truncated)"),
        (b"Np9223372036854775807\n.", "(MemoryError: )"),
        (b"Np9223372036854775808\n.", "(OverflowError: "),
        (b"I1\nI2\na.", "(AttributeError: "),
        (b"]I5\nI1\ns.", "(IndexError: "),
        (b"}" + DEEP + b"I1\ns" + DEEP + b"I2\ns.", "(RecursionError: "),
        (b"\x80\x05\x96\x01\0\0\0\0\0\0\0a\x94\x98h\0(I1\nI2\ne.", "(BufferError: "),
        (b"c" + b"x" * 9999 + b"\nx\n.", "asks for xxx"),
        (b"\x80\x09.", "(ValueError: unsupported pickle protocol: 9)"),
        (b"c__main__\nCHAIR\n)}S'a\\nb'\nI1\ns\x92.", r"unexpected keyword argument 'a\nb'"),
        (pickle.dumps({1: ["dog"]}), "it is a pickle, but not of the evaluator"),
        (pickle.dumps(CHAIR), "it is a pickle, but not of the evaluator"),
        (b"c__builtin__\nobject\n)\x81.", "it is a pickle, but not of the evaluator"),
        (pickle.dumps(CHAIR(objects={1: ["dog"]})), "its objects by image id, is missing"),
        (cache({}), "its objects by image id, is empty"),
        (cache([["dog"]]), "its objects by image id, is no dict"),
        (cache({"1": ["dog"]}), "of at most 12 digits, but one is another str"),
        (cache({True: ["dog"]}), "but one is another bool"),
        (cache({-1: ["dog"]}), "but one is another int"),
        (cache({10**12: ["dog"]}), "but one is another int"),
        (cache({1 << 99_999: ["dog"]}), "but one is another int"),
        (cache({1: "dog"}), "image 1 has no list or set of object names"),
        (cache({1: None}), "image 1 has no list or set of object names"),
        (cache({7: ["dog", ["dog"]]}), "image 7 has no list or set of object names"),
        (cache({7: {"dog", 7}}), "image 7 has no list or set of object names"),
        (cache({7: ["dog", "puppy"]}), "image 7: 'puppy' is not one of COCO's 80 objects"),
        (cache({7: {"\ud800\n" * 99}}), r"image 7: '\ud800\n\ud800\n"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_cache_is_one_sentence(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "chair.pkl", tmp_path / "truth.json"
    path.write_bytes(content)
    output.write_text("before")

    assert main([str(path), "--output", str(output), "--force"]) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"import_chair_cache: error: {path}")
    assert message in printed.err
    assert printed.err[:-1].isprintable()
    assert len(printed.err) < 400 + len(str(path))
    assert output.read_text() == "before"


@pytest.mark.parametrize(
    ("cache_name", "output_name", "message"),
    [
        ("absent.pkl", "truth.json", "absent.pkl can't be read: No such file or directory"),
        (".", "truth.json", "can't be read: Is a directory"),
        ("set-4.pkl", "truth.pkl", "truth.pkl: the name must end in .json or .json.gz"),
        ("set-4.pkl", "truth.gz", "truth.gz: the name must end in .json or .json.gz"),
        ("set-4.pkl", "chair.py/truth.json", "truth.json can't be written: "),
        ("set-4.pkl", "x" * 300 + ".json", "File name too long"),
    ],
)
def test_files_that_cannot_be_used_are_one_sentence(
    genuine: Path,
    capsys: pytest.CaptureFixture[str],
    cache_name: str,
    output_name: str,
    message: str,
) -> None:
    assert main([str(genuine / cache_name), "--output", str(genuine / output_name)]) == 2

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_cache_is_never_the_output(
    genuine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, link = tmp_path / "cache.json", tmp_path / "link.json"
    cache.write_bytes((genuine / "set-4.pkl").read_bytes())
    link.hardlink_to(cache)
    before = cache.read_bytes()

    for output in (cache, link):
        assert main([str(cache), "--output", str(output), "--force"]) == 2
        assert f"--output {output} is the cache itself" in capsys.readouterr().err
    assert cache.read_bytes() == before


def test_an_output_is_replaced_only_if_asked_to(
    genuine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "truth.json"
    output.write_text("mine")
    command = [str(genuine / "set-4.pkl"), "--output", str(output)]

    assert main(command) == 2
    assert f"--output {output} exists; pass --force to replace it" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert main([*command, "--force"]) == 0
    assert chair_truth.read(output).objects == OBJECTS
