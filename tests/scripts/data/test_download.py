"""scripts/data/download.sh against a server on this machine that serves a few small files."""

import io
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts/data/download.sh"
KINDS = ("random", "popular", "adversarial")
OPERA = '{"question_id": 1, "text": "Is there an apple in the imange?", "label": "no"}\n'
OFFICIAL = '{"question_id": 1, "text": "Is there an apple in the image?", "label": "no"}\n'
ANNOTATIONS = [
    f"{kind}_{part}2014.json" for kind in ("instances", "captions") for part in ("train", "val")
]

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("bash", "curl", "unzip")),
    reason="bash, curl or unzip is not installed",
)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Server:
    """What is served, how it misbehaves, what was asked for, and what the script should expect."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, str | None]] = []
        self.break_off_after: int | None = None
        self.breaks_off_always = False
        self.statuses: list[int] = []  # of the next answers
        self.endless = False
        self.drips = False
        self.stalls = threading.Event()
        self.stalls.set()
        self.resumes = True
        self.files = {
            "/zips/val2014.zip": zipped({f"val2014/{i}.jpg": os.urandom(2000) for i in range(3)}),
            "/annotations/annotations_trainval2014.zip": zipped(
                {f"annotations/{name}": b"{}" for name in [*ANNOTATIONS, "person_keypoints.json"]}
            ),
        }
        for kind in KINDS:
            self.files[f"/opera/coco_pope_{kind}.json"] = OPERA.replace("\n", "\r\n").encode()
            self.files[f"/official/coco_pope_{kind}.json"] = (2 * OFFICIAL).encode()
            self.files[f"/repope/coco_repope_{kind}.json"] = OFFICIAL.encode()
        self.expect = {
            "val2014.zip": len(self.files["/zips/val2014.zip"]),
            "val2014": 3,
            "annotations_trainval2014.zip": len(
                self.files["/annotations/annotations_trainval2014.zip"]
            ),
            **{f"pope-opera-2910/coco_pope_{kind}.json": len(OPERA) for kind in KINDS},
            **{f"pope-official-3000/coco_pope_{kind}.json": 2 for kind in KINDS},
            **{f"repope/coco_repope_{kind}.json": 1 for kind in KINDS},
        }


class Handler(BaseHTTPRequestHandler):
    def __init__(self, server: Server, *args: object) -> None:
        self.site = server
        super().__init__(*args)  # type: ignore[arg-type]  # what socketserver passes

    def do_GET(self) -> None:
        site, asked = self.site, self.headers.get("Range")
        site.requests.append((self.path, asked))
        content = site.files.get(self.path)
        if site.statuses:
            self.send_error(site.statuses.pop(0))
            return
        if site.endless:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # the other side has seen enough
                while True:
                    self.wfile.write(bytes(1 << 20))
        if content is None:
            self.send_error(404)
            return
        start = 0
        if asked and site.resumes:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if site.drips:
            with suppress(OSError):  # the other side has seen enough
                for at in range(start, len(content), 50):
                    self.wfile.write(content[at : at + 50])
                    time.sleep(0.25)
            return
        stop = len(content)
        if site.break_off_after is not None:
            stop = start + site.break_off_after
            if not site.breaks_off_always:
                site.break_off_after = None
        self.wfile.write(content[start:stop])
        self.wfile.flush()
        site.stalls.wait(30)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(site: Server) -> Iterator[None]:
    """Serve a site's files at its address."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, site))
    site.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield
    site.stalls.set()
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    site = Server()
    with serving(site):
        yield site


def environment_of(site: Server, **variables: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "COCO_URL": site.url,
        "POPE_URL": f"{site.url}/official",
        "POPE_OPERA_URL": f"{site.url}/opera",
        "REPOPE_URL": f"{site.url}/repope",
        "EXPECT": " ".join(f"{name}={number}" for name, number in site.expect.items()),
        "WAIT": "0",
        **variables,
    }


def download(
    site: Server, folder: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), "--dir", str(folder), *arguments],
        env=environment_of(site, **variables),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


EVERYTHING = (
    {f"val2014/{i}.jpg" for i in range(3)}
    | {f"annotations/{name}" for name in ANNOTATIONS}
    | {
        f"{release}/coco_pope_{kind}.json"
        for kind in KINDS
        for release in ("pope-opera-2910", "pope-official-3000")
    }
    | {f"repope/coco_repope_{kind}.json" for kind in KINDS}
)


def test_fresh_download_leaves_the_files_and_no_archives(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    done = download(server, folder)

    assert done.returncode == 0, done.stderr
    assert contents(folder) == EVERYTHING


def test_second_run_downloads_nothing(server: Server, tmp_path: Path) -> None:
    download(server, tmp_path)
    server.requests.clear()

    done = download(server, tmp_path)

    assert done.returncode == 0
    assert server.requests == []
    assert done.stderr.count("complete") == 11


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_questions_put_there_by_hand_may_have_either_line_end(
    server: Server, tmp_path: Path, line_end: str
) -> None:
    file = tmp_path / "pope-opera-2910" / "coco_pope_random.json"
    file.parent.mkdir()
    file.write_bytes(OPERA.replace("\n", line_end).encode())

    done = download(server, tmp_path, "--only", "pope")

    assert done.returncode == 0, done.stderr
    assert f"{file}: complete" in done.stderr


def test_only_takes_several(server: Server, tmp_path: Path) -> None:
    download(server, tmp_path, "--only", "images", "--only", "annotations")

    assert {name.split("/")[0] for name in contents(tmp_path)} == {"val2014", "annotations"}


def test_half_a_file_is_resumed(server: Server, tmp_path: Path) -> None:
    half = server.expect["val2014.zip"] // 2
    (tmp_path / "val2014.zip.part").write_bytes(server.files["/zips/val2014.zip"][:half])

    done = download(server, tmp_path, "--only", "images")

    assert done.returncode == 0, done.stderr
    assert server.requests == [("/zips/val2014.zip", f"bytes={half}-")]
    assert len(contents(tmp_path)) == 3


def test_transfer_that_breaks_off_goes_on_in_the_same_run(server: Server, tmp_path: Path) -> None:
    server.break_off_after = 1000

    done = download(server, tmp_path, "--only", "images")

    assert done.returncode == 0, done.stderr
    assert [asked for _, asked in server.requests] == [None, "bytes=1000-"]
    assert "resuming from 1000 bytes" in done.stderr


def test_a_server_that_always_breaks_off_is_left_and_its_bytes_are_kept(
    server: Server, tmp_path: Path
) -> None:
    server.break_off_after, server.breaks_off_always = 100, True

    done = download(server, tmp_path, "--only", "images", TRIES="4")

    assert done.returncode == 1
    assert [asked for _, asked in server.requests] == [None, *(f"bytes={n}00-" for n in (1, 2, 3))]
    assert done.stderr.splitlines()[-1].startswith(
        "error: val2014.zip could not be fetched, its transfer broke off 4 times; 400 bytes are "
        "kept, run this command again to resume; fetch "
    )
    assert contents(tmp_path) == {"val2014.zip.part"}
    server.break_off_after = None
    assert download(server, tmp_path, "--only", "images").returncode == 0
    assert server.requests[-1][1] == "bytes=400-"


def test_the_waits_double(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429, 500, 408, 502, 503, 504, 503]
    (tmp_path / "sleep").write_text('#!/bin/sh\necho "slept $1" >&2\n')
    (tmp_path / "sleep").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    done = download(server, tmp_path / "data", "--only", "images", WAIT="1", PATH=path)

    assert done.returncode == 0, done.stderr
    waits = [int(line[6:]) for line in done.stderr.splitlines() if line.startswith("slept ")]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_file_that_is_not_there_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    del server.files["/zips/val2014.zip"]

    assert download(server, tmp_path, "--only", "images").returncode == 1
    assert len(server.requests) == 1


@pytest.mark.parametrize(("what", "count"), [("images", 1), ("repope", 3)])
def test_an_endless_answer_does_not_fill_the_disk(
    server: Server, tmp_path: Path, what: str, count: int
) -> None:
    server.endless = True

    done = download(server, tmp_path, "--only", what)

    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert len([line for line in said if "its server sends more than" in line]) == count
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 9 << 20


def test_a_server_that_falls_silent_is_left(server: Server, tmp_path: Path) -> None:
    server.break_off_after = 100
    server.stalls.clear()

    done = download(server, tmp_path, "--only", "images", STALL="1", TRIES="1")

    assert done.returncode == 1
    assert "its transfer broke off 1 times; 100 bytes are kept" in done.stderr


def test_a_server_that_sends_200_bytes_a_second_is_left(server: Server, tmp_path: Path) -> None:
    server.drips = True
    start = time.monotonic()

    done = download(server, tmp_path, "--only", "images", STALL="2", TRIES="1")

    assert time.monotonic() - start < 20 < len(server.files["/zips/val2014.zip"]) / 200
    assert done.returncode == 1
    assert "its transfer broke off 1 times" in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_at_once_and_another_is_kept_out_until_then(
    server: Server, tmp_path: Path, number: int, status: int
) -> None:
    server.break_off_after = 5000  # curl writes 4,096 at once
    server.stalls.clear()
    begun = subprocess.Popen(
        ["bash", str(SCRIPT), "--dir", str(tmp_path), "--only", "images"],
        env=environment_of(server), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    part = tmp_path / "val2014.zip.part"
    for _ in range(500):
        if part.exists() and part.stat().st_size:
            break
        time.sleep(0.01)

    if shutil.which("flock"):
        second = download(server, tmp_path)
        assert second.returncode == 1
        assert second.stderr == (
            f"error: another download into {tmp_path} is running; wait for it, or choose another "
            "--dir.\n"
        )
    begun.send_signal(number)
    _, said = begun.communicate(timeout=10)

    assert begun.returncode == status
    assert said.splitlines()[-1] == (
        "error: interrupted; what was fetched is kept, run this command again to resume."
    )
    assert part.stat().st_size >= 4096
    server.stalls.set()
    assert download(server, tmp_path, "--only", "images").returncode == 0


def test_what_is_in_the_way_is_named(server: Server, tmp_path: Path) -> None:
    for name in ("pope-opera-2910", "val2014", "repope"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "annotations_trainval2014.zip").mkdir()

    done = download(server, tmp_path)
    whole = download(server, tmp_path / "repope")

    assert (done.returncode, whole.returncode) == (1, 1)
    for name in ("pope-opera-2910", "repope"):
        assert f"error: {tmp_path}/{name} can't be a folder that is written into" in done.stderr
    assert f"error: {tmp_path}/val2014 is not a folder" in done.stderr
    assert f"error: {tmp_path}/annotations_trainval2014.zip is not a file" in done.stderr
    assert all(line.startswith(("error: ", "fetching ")) for line in done.stderr.splitlines())
    assert whole.stderr.startswith(f"error: {tmp_path}/repope can't be a folder")
    assert (tmp_path / "val2014").read_text() == "mine"


def test_a_full_disk_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "curl").write_text("#!/bin/sh\nexit 23\n")
    (tmp_path / "curl").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    done = download(server, tmp_path / "data", "--only", "images", PATH=path)

    assert done.returncode == 1
    assert "val2014.zip could not be written: make room if the disk is full; fetch" in done.stderr


def test_an_odd_number_is_refused(server: Server, tmp_path: Path) -> None:
    done = download(server, tmp_path, TRIES="many")

    assert done.returncode == 2
    assert done.stderr.startswith("error: TRIES=many, but it is a whole number")


def test_server_that_cannot_resume_starts_again(server: Server, tmp_path: Path) -> None:
    server.resumes = False
    (tmp_path / "val2014.zip.part").write_bytes(b"half")

    done = download(server, tmp_path, "--only", "images")

    assert done.returncode == 0, done.stderr
    assert len(contents(tmp_path)) == 3


def test_wrong_size_is_an_error_and_leaves_no_file(server: Server, tmp_path: Path) -> None:
    size = server.expect["val2014.zip"]
    server.files["/zips/val2014.zip"] += b"more"

    done = download(server, tmp_path, "--only", "images")

    assert done.returncode == 1
    assert f"val2014.zip sent {size + 4} bytes instead of {size}" in done.stderr
    assert f"put it at {tmp_path}/val2014.zip" in done.stderr
    assert contents(tmp_path) == set()


def test_labels_of_repope_are_checked_by_number_and_sum(server: Server, tmp_path: Path) -> None:
    assert download(server, tmp_path, "--only", "repope").returncode == 0
    assert contents(tmp_path) == {f"repope/coco_repope_{kind}.json" for kind in KINDS}
    labels = tmp_path / "repope/coco_repope_popular.json"
    del server.expect["repope/coco_repope_popular.json"]

    few = download(server, tmp_path, "--only", "repope")
    labels.write_text(2727 * OFFICIAL)
    other = download(server, tmp_path, "--only", "repope")

    assert (few.returncode, other.returncode) == (1, 1)
    assert f"{labels} has 1 questions instead of 2727; remove it" in few.stderr
    assert f"{labels} has sha256 " in other.stderr
    assert "instead of 57832b055bae" in other.stderr


def test_wrong_questions_are_an_error_and_leave_no_file(server: Server, tmp_path: Path) -> None:
    server.files["/official/coco_pope_popular.json"] = OFFICIAL.encode()

    done = download(server, tmp_path, "--only", "pope")

    assert done.returncode == 1
    assert "coco_pope_popular.json sent 1 questions instead of 2" in done.stderr
    assert len(contents(tmp_path)) == 5


def test_damaged_archive_of_the_right_size_is_an_error(server: Server, tmp_path: Path) -> None:
    server.files["/zips/val2014.zip"] = bytes(server.expect["val2014.zip"])

    done = download(server, tmp_path, "--only", "images")

    assert done.returncode == 1
    assert f"{tmp_path}/val2014.zip can't be unpacked" in done.stderr
    assert not (tmp_path / "val2014").exists()


def test_folder_that_lacks_images_is_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "val2014").mkdir()
    (tmp_path / "val2014" / "0.jpg").touch()

    done = download(server, tmp_path, "--only", "images")

    assert done.returncode == 1
    assert "holds 1 images instead of 3; move it away" in done.stderr
    assert contents(tmp_path) == {"val2014/0.jpg"}
    assert server.requests == []


def test_unreachable_server_says_what_to_fetch_by_hand(tmp_path: Path) -> None:
    nowhere = Server()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere.url = f"http://127.0.0.1:{closed.getsockname()[1]}"

        done = download(nowhere, tmp_path)

    url = f"{nowhere.url}/zips/val2014.zip"
    assert done.returncode == 1
    assert (
        f"error: val2014.zip could not be fetched; fetch {url} by hand, put it at "
        f"{tmp_path}/val2014.zip, and run this command again."
    ) in done.stderr.splitlines()
    assert done.stderr.count("by hand") == 11
    assert contents(tmp_path) == set()


def test_archive_put_there_by_hand_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "val2014.zip").write_bytes(server.files["/zips/val2014.zip"])

    done = download(server, tmp_path, "--only", "images")

    assert done.returncode == 0, done.stderr
    assert server.requests == []
    assert len(contents(tmp_path)) == 3


def test_missing_tool_is_named(tmp_path: Path) -> None:
    (tmp_path / "curl").symlink_to(shutil.which("curl") or "")
    bash = shutil.which("bash") or ""

    done = subprocess.run(
        [bash, str(SCRIPT), "--dir", str(tmp_path / "data")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr == "error: unzip is not installed; install it and run this command again.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--only", "everything"),
            "--only everything, but it is images, annotations, pope, repope, ",
        ),
        (("--all",), "--all is not an option; the options are --dir, --only and --help"),
        (("--only",), "--only needs a value"),
    ],
)
def test_bad_arguments_are_refused(
    server: Server, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = download(server, tmp_path, *arguments)

    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_known_sums_are_those_of_the_reference_questions(
    shared: Path, kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / "pope-opera-2910"
    folder.mkdir()
    name = f"coco_pope_{kind}.json"
    shutil.copy(shared / "pope" / name, folder / name)

    done = subprocess.run(
        ["bash", str(SCRIPT), "--dir", str(tmp_path), "--only", "pope"],
        env={
            "PATH": os.environ["PATH"],
            "POPE_URL": "http://127.0.0.1:9",
            "POPE_OPERA_URL": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert f"{folder / name}: complete" in done.stderr
