"""scripts/data/download.sh and benchmarks beside POPE and CHAIR: fetched, checked, or explained."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.data.test_download import SCRIPT, Server, contents, environment_of, serving

AMBER = ("query/query_all.json", "query/query_generative.json", "query/query_discriminative.json",
         "annotations.json", "relation.json", "safe_words.txt")  # fmt: skip
SEEM = [f"{name}/{name}_pope_seem_{kind}.json" for name in ("aokvqa", "gqa")
        for kind in ("random", "popular", "adversarial")]  # fmt: skip
LISTS = [f"dash_benchmark_{side}.json" for side in ("neg", "pos")]
# What is asked for, its folder, and by path on the server the path in that folder.
FETCHED = {
    "amber": ("AMBER", {f"/amber/{name}": name.removeprefix("query/") for name in AMBER}),
    "seem": ("POPE", {f"/seem/{name}": name.split("/")[1] for name in SEEM}),
    "hallusionbench": ("HallusionBench", {"/hb/HallusionBench.json": "HallusionBench.json"}),
    "dash-b": ("DASH-B", {f"/dash/{name}": f"images/{name}" for name in LISTS}),
}

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("bash", "curl", "unzip")),
    reason="bash, curl or unzip is not installed",
)


@pytest.fixture
def server() -> Iterator[Server]:
    site = Server()
    for what, (_, files) in FETCHED.items():
        for address, path in files.items():
            content = f'{{"served": "{address}"}}\n'.encode()
            site.files[address] = content
            site.expect[f"{what}/{path}"] = len(content)
    with serving(site):
        yield site


def download(
    site: Server, folder: Path, *kinds: str, flags: tuple[str, ...] = (), expect: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Ask for benchmarks in a folder that the default places are below."""
    environment = environment_of(
        site,
        AMBER_URL=f"{site.url}/amber", SEEM_URL=f"{site.url}/seem",
        HALLUSIONBENCH_URL=f"{site.url}/hb", DASH_B_URL=f"{site.url}/dash",
    )  # fmt: skip
    if expect is not None:
        environment["EXPECT"] = expect
    asked = [flag for what in kinds for flag in ("--only", what)]
    return subprocess.run(
        ["bash", str(SCRIPT), *flags, *asked],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_each_benchmark_comes_into_a_folder_of_its_own(server: Server, tmp_path: Path) -> None:
    done = download(server, tmp_path, *FETCHED, "repope")

    assert done.returncode == 0, done.stderr
    expected = {
        f"data/{folder}/{path}": server.files[address]
        for folder, files in FETCHED.values()
        for address, path in files.items()
    }
    found = {name for name in contents(tmp_path) if not name.startswith("data/COCO/repope/")}
    assert found == set(expected)
    assert len(contents(tmp_path)) == len(expected) + 3
    assert all((tmp_path / name).read_bytes() == content for name, content in expected.items())

    server.requests.clear()
    again = download(server, tmp_path, *FETCHED)
    assert (again.returncode, server.requests) == (0, [])
    assert again.stderr.count(": complete") == len(expected)


def test_pictures_that_are_not_fetched_are_named_with_their_place(
    server: Server, tmp_path: Path
) -> None:
    notes = {
        "amber": "AMBER's pictures are not fetched (a shared drive, no stable address): get them "
        "from the link in the README of github.com/junyangwang0410/AMBER, so that "
        "data/AMBER/image/AMBER_1.jpg is there.",
        "seem": "A-OKVQA's pictures are COCO's val2014 (--only images); GQA's are images.zip",
        "hallusionbench": "so that data/HallusionBench/VD/illusion/0_0.png is there.",
        "dash-b": "so that data/DASH-B/images/neg is there.",
    }
    done = {what: download(server, tmp_path, what) for what in notes}

    assert all(notes[what] in done[what].stderr for what in notes)
    assert "note: DASH-B states no licence; see github.com/YanNeu/DASH-B" in done["dash-b"].stderr
    for name in ("AMBER/image/AMBER_1.jpg", "HallusionBench/VD/illusion/0_0.png",
                 "DASH-B/images/neg", "DASH-B/images/pos"):  # fmt: skip
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for what in ("amber", "hallusionbench", "dash-b"):
        assert "pictures" not in download(server, tmp_path, what).stderr


def test_dir_is_taken_for_whatever_is_asked_for(server: Server, tmp_path: Path) -> None:
    done = download(server, tmp_path, "hallusionbench", "mme", flags=("--dir", "here"))

    assert done.returncode == 1
    assert contents(tmp_path) == {"here/HallusionBench.json"}
    assert "so that here/MME_Benchmark_release_version/existence is there." in done.stderr


@pytest.mark.parametrize(
    ("what", "place", "said"),
    [
        ("mme", "data/MME/MME_Benchmark_release_version/existence",
         "error: MME is not fetched (it states no licence): get MME_Benchmark_release_version.zip"),
        ("mmhal", "data/MMHal/response_template.json",
         "error: MMHal-Bench is not fetched (no address of it stays the same): get the data set"),
    ],
)  # fmt: skip
def test_what_is_never_fetched_is_explained_and_fails_until_it_is_there(
    server: Server, tmp_path: Path, what: str, place: str, said: str
) -> None:
    missing = download(server, tmp_path, what)

    assert (missing.returncode, server.requests, list(tmp_path.iterdir())) == (1, [], [])
    first = missing.stderr.splitlines()[0]
    assert first.startswith(said)
    assert first.endswith(f"so that {place} is there.")
    (tmp_path / place).mkdir(parents=True)
    there = download(server, tmp_path, what)
    assert there.returncode == 0
    assert f"{place}: there" in there.stderr


def test_a_file_that_differs_from_its_commit_is_refused(server: Server, tmp_path: Path) -> None:
    done = download(server, tmp_path, "hallusionbench", expect="")

    assert done.returncode == 1
    assert f"error: {server.url}/hb/HallusionBench.json sent 38 bytes instead of 431987, " in (
        done.stderr
    )
    assert "put it at data/HallusionBench/HallusionBench.json" in done.stderr
    assert contents(tmp_path) == set()

    path = tmp_path / "data/HallusionBench/HallusionBench.json"
    path.write_bytes(bytes(431987))
    changed = download(server, tmp_path, "hallusionbench", expect="")
    assert changed.returncode == 1
    assert "instead of ca6e0fb677dd56e5" in changed.stderr


def test_known_sums_are_those_of_the_reference_files(
    server: Server, shared: Path, tmp_path: Path
) -> None:
    real = shared / "benchmarks"
    for source, folder in (("amber", "AMBER"), ("hallusionbench", "HallusionBench"),
                           ("pope-aokvqa-gqa", "POPE")):  # fmt: skip
        shutil.copytree(real / source, tmp_path / "data" / folder)
        os.chmod(tmp_path / "data" / folder, 0o755)
    server.files.clear()

    done = download(server, tmp_path, "amber", "seem", "hallusionbench", expect="")

    assert done.stderr.count(": complete") == 5 + 6 + 1
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        line for line in done.stderr.splitlines() if "query_all.json could not be fetched" in line
    ]
