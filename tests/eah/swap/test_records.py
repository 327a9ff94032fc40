"""What pip and conda record, and what is left without it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from eah import swap
from tests.eah.swap.installs import error_of, run, tree


@pytest.mark.parametrize("missing", ["dist-info", "RECORD", "row", "hash"])
def test_without_a_record_the_content_decides(
    site: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = without_record(site, missing)

    assert run(site, "status") == 0
    assert "is transformers' own, by its content (nothing records it)" in capsys.readouterr().out
    assert run(site, "install") == 0
    assert swap.status(swap.find(family="llama", site_packages=site)).kept == "sound"
    assert run(site, "status") == 0
    assert run(site, "restore") == 0

    assert tree(site) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("class LlamaModel", "class CamelModel"),
        ("    pass", "    layer = os.environ['LAYER_NUM']"),
        ("    pass", "    layer = os.getenv('LAYER_NUM')"),
    ],
)
def test_without_a_record_what_does_not_look_original_is_refused(
    site: Path, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    without_record(site, "RECORD")
    file = site / "transformers" / "models" / "llama" / "modeling_llama.py"
    file.write_text(file.read_text().replace(old, new))
    before = tree(site)

    assert run(site, "status") == 1
    assert "neither transformers' own nor EAH's" in capsys.readouterr().out
    assert run(site, "install") == 2
    assert "pass --force to keep it as the original" in error_of(capsys)

    assert tree(site) == before


def without_record(site: Path, missing: str) -> dict[str, bytes]:
    """Remove what pip knows about llama's file, and return what is left."""
    record = site / "transformers-4.99.0.dist-info" / "RECORD"
    if missing == "dist-info":
        shutil.rmtree(record.parent)
    elif missing == "RECORD":
        record.unlink()
    else:
        rows = record.read_text()
        row = "" if missing == "row" else r"\1,,"
        record.write_text(re.sub(r"(transformers/models/llama/[^,]*),.*", row, rows))
    return tree(site)


def conda(site: Path, checksum: str, **entry: str) -> Path:
    """Make an environment of conda, whose packages need no RECORD."""
    without_record(site, "dist-info")
    prefix = site.parent / "conda"
    packages = prefix / "lib" / "python3.9" / "site-packages"
    packages.parent.mkdir(parents=True)
    site.rename(packages)
    path = "lib/python3.9/site-packages/transformers/models/llama/modeling_llama.py"
    (prefix / "conda-meta").mkdir()
    for name, digest in (("transformers", checksum), ("transformers-0extra", "1" * 64)):
        entries = [{"_path": "bin/transformers-cli"}, {"_path": path, "sha256": digest, **entry}]
        meta = {"name": name, "version": "4.99.0", "paths_data": {"paths": entries}}
        file = prefix / "conda-meta" / f"{name}-4.99.0-pyhd8ed1ab_0.json"
        file.write_text(json.dumps(meta))
    return packages


def test_conda_records_the_original(site: Path) -> None:
    content = (site / "transformers/models/llama/modeling_llama.py").read_bytes()
    packages = conda(site, hashlib.sha256(content).hexdigest())

    place = swap.find(family="llama", site_packages=packages)

    assert (place.version, place.record) == ("4.99.0", "records")
    assert swap.status(place).kind == "original"
    place.file.write_bytes(content + b"# edited")
    assert run(packages, "install") == 2


def test_conda_may_have_changed_a_file_for_its_prefix(site: Path) -> None:
    content = (site / "transformers/models/llama/modeling_llama.py").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    packages = conda(site, "0" * 64, sha256_in_prefix=digest)

    assert swap.find(family="llama", site_packages=packages).recorded == digest


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "7", '{"name": "transformers", "paths_data": null}',
     '{"name": "transformers", "paths_data": {"paths": null}}',
     '{"name": "transformers", "version": "4.99.0", "paths_data": {"paths": [null, {}, '
     '{"_path": null, "sha256": "0"}, {"_path": "PATH", "sha256": 0}]}}'],
)  # fmt: skip
def test_a_damaged_record_of_conda_is_none(site: Path, text: str) -> None:
    packages = conda(site, "0" * 64)
    path = "lib/python3.9/site-packages/transformers/models/llama/modeling_llama.py"
    for file in (packages.parents[2] / "conda-meta").iterdir():
        file.write_text(text.replace("PATH", path))

    assert swap.find(family="llama", site_packages=packages).record == ""


@pytest.mark.parametrize("length", [1, 2, 3, 42, 44])
def test_a_truncated_hash_of_pip_is_no_record(site: Path, length: int) -> None:
    record = site / "transformers-4.99.0.dist-info" / "RECORD"
    rows = re.sub(r"sha256=([\w-]+)", lambda row: f"sha256={(row[1] * 2)[:length]}",
                  record.read_text())  # fmt: skip
    record.write_text(rows)

    assert swap.find(family="llama", site_packages=site).record == ""


@pytest.mark.parametrize(
    "metadata",
    ["transformers-4.99.0.dist-info", "transformers-4.99.0-py3.9.egg-info",
     "transformers-4.99.0.egg-info"],
)  # fmt: skip
def test_the_version_is_in_the_name_of_the_metadata(site: Path, metadata: str) -> None:
    without_record(site, "dist-info")
    (site / metadata).mkdir()
    (site / "transformers_stream_generator-0.0.5.dist-info").mkdir()
    (site / "transformers" / "__init__.py").write_text("")

    assert swap.find(family="llama", site_packages=site).version == "4.99.0"


def test_the_record_of_another_version_does_not_count(site: Path) -> None:
    """As where a tree was copied over an install."""
    (site / "transformers" / "__init__.py").write_text('__version__ = "4.37.0.dev0"\n')

    place = swap.find(family="llama", site_packages=site)

    assert (place.version, place.record) == ("4.37.0.dev0", "")


def test_a_file_that_is_gone_is_told_by_the_configuration_beside_it(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_record(site, "dist-info")
    folder = site / "transformers" / "models" / "llama"
    (folder / "modeling_llama.py").unlink()
    assert run(site, "status") == 1
    (folder / "configuration_llama.py").unlink()

    assert run(site, "status") == 2

    assert "has no models/llama/modeling_llama.py" in error_of(capsys)
