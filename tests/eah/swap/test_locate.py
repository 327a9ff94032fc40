"""Where transformers is."""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path

import pytest

from eah import swap
from eah.swap import locate
from tests.eah.swap.installs import error_of, interpreter, ours, run, tree


def test_an_interpreter_is_asked_for_its_transformers(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = interpreter(tmp_path, f'PYTHONPATH="{site}" exec "{sys.executable}" -S "$@"')
    (tmp_path / "here" / "transformers").mkdir(parents=True)
    (tmp_path / "here" / "transformers" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path / "here")

    place = swap.find(family="llama", python=python)

    assert place.package == site / "transformers"
    assert swap.main(["install", "--python", str(python)]) == 0
    assert place.file.read_bytes() == ours()
    assert swap.main(["restore", "--python", str(python)]) == 0


def test_what_an_interpreter_prints_at_its_start_is_no_path(site: Path, tmp_path: Path) -> None:
    python = interpreter(tmp_path, f"echo hello; echo '{site}/transformers/__init__.py'")

    assert swap.find(family="llama", python=python).package == site / "transformers"


@pytest.mark.parametrize("kind", ["nothing", "fails", "folder", "no program"])
def test_an_interpreter_that_cant_be_run_is_one_sentence(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    python = interpreter(tmp_path, "exit 3")
    if kind == "nothing":
        python.unlink()
    elif kind == "folder":
        python = tmp_path
    elif kind == "no program":
        python.chmod(0o644)

    assert swap.main(["status", "--python", str(python)]) == 2

    error = error_of(capsys)
    assert f"--python {python} can't be run (" in error
    assert "name an interpreter" in error


def test_an_interpreter_that_does_not_answer_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locate, "TIMEOUT_S", 0.3)
    python = interpreter(tmp_path, "exec sleep 30")
    start = time.monotonic()

    assert swap.main(["status", "--python", str(python)]) == 2

    assert time.monotonic() - start < 20
    assert f"--python {python} does not say where its transformers is" in error_of(capsys)


@pytest.mark.parametrize("printed", ["echo", "true"])
def test_an_interpreter_without_transformers_is_one_sentence(
    tmp_path: Path, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    python = interpreter(tmp_path, printed)

    assert swap.main(["install", "--python", str(python)]) == 2

    assert f"{python} has no transformers; install it there" in error_of(capsys)


@pytest.mark.parametrize("left", ["nothing", "a folder"])
def test_a_folder_without_transformers_is_one_sentence(
    tmp_path: Path, left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if left == "a folder":  # as pip leaves it, where EAH was swapped in
        (tmp_path / "transformers" / "models" / "llama").mkdir(parents=True)

    assert run(tmp_path, "status") == 2

    assert f"{tmp_path} has no transformers; install it there" in error_of(capsys)


@pytest.mark.parametrize("left", ["nothing", "a folder"])
def test_a_running_interpreter_without_transformers_is_one_sentence(
    tmp_path: Path, left: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if left == "a folder":
        (tmp_path / "transformers").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "transformers", raising=False)

    assert swap.main(["status"]) == 2

    assert f"{sys.executable} has no transformers" in error_of(capsys)


def test_the_running_interpreter_is_meant_if_none_is_named(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(site)])
    monkeypatch.delitem(sys.modules, "transformers", raising=False)

    assert swap.find(family="llama").package == site / "transformers"


def test_other_packages_and_padded_hashes_do_not_confuse_it(site: Path) -> None:
    other = site / "transformers-0.1.dist-info"  # as an interrupted upgrade leaves it
    other.mkdir()
    (other / "RECORD").write_text("")
    (site / "transformers_stream_generator-0.0.5.dist-info").mkdir()
    record = site / "transformers-4.99.0.dist-info" / "RECORD"
    record.write_text(re.sub(r"(sha256=.{43}),", r"\1=,", record.read_text()))

    place = swap.find(family="llama", site_packages=site)

    assert place.version == "4.99.0"
    assert swap.status(place).kind == "original"


def test_a_zip_file_is_one_sentence(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = shutil.make_archive(str(tmp_path / "site"), "zip", site)

    assert run(Path(archive), "install") == 2

    assert "is in a zip file; install it as a folder" in error_of(capsys)


def test_a_zip_file_of_the_running_interpreter_is_one_sentence(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = shutil.make_archive(str(tmp_path / "site"), "zip", site)
    monkeypatch.setattr(sys, "path", [archive])
    monkeypatch.delitem(sys.modules, "transformers", raising=False)

    assert swap.main(["status"]) == 2

    assert "is in a zip file" in error_of(capsys)


@pytest.mark.parametrize("family", ["camel", "", "../models/camel", "llama/", "ll.ma"])
def test_a_family_that_is_not_there_is_one_sentence(
    site: Path, family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(site)

    assert run(site, "install", "--model", family) == 2

    assert "--model is the name of one of its folders in models/" in error_of(capsys)
    assert tree(site) == before


def test_a_path_of_an_interpreter_is_no_name_on_the_search_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    on_path = interpreter(tmp_path / "bin", "exit 1")
    monkeypatch.setenv("PATH", str(on_path.parent))
    monkeypatch.chdir(tmp_path)

    assert locate.interpreter_of("./python") == tmp_path / "python"
    assert locate.interpreter_of("python") == on_path
    assert locate.interpreter_of("python4") == Path("python4")


def test_an_interpreters_link_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "python"
    link.symlink_to(sys.executable)

    assert locate.interpreter_of(str(link)) == link


@pytest.mark.parametrize("variable", ["PYTHONPATH", "PYTHONHOME"])
def test_the_callers_variables_are_not_the_interpreters(
    site: Path, tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    python = interpreter(
        tmp_path, f'echo "${variable}" > "{log}"; echo "{site}/transformers/__init__.py"'
    )
    monkeypatch.setenv(variable, str(tmp_path))

    assert swap.main(["status", "--python", str(python)]) == 0

    assert log.read_text() == "\n"
