"""The command against hostile endpoints: one sentence each, nothing leaked, what is paid kept."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from eval.gpt4v_eval import main
from eval.tasks.judge import ask, client
from tests.eval.judge_inputs import flags_for, rows_of, run_folder, write_inputs
from tests.eval.judge_stub import MODEL, SECRET, USAGE, Stub, serve
from tests.eval.tasks.judge.test_replies import pieces

pytestmark = pytest.mark.usefixtures("judge_key")

GRADES = "Accuracy: 8 7\n\nDetailedness: 8 7"
ONE = ["--num-images", "1", "--single-order"]
Raw = tuple[int, dict[str, str], bytes]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    write_inputs(tmp_path, 2)
    return tmp_path


def completion(text: str = GRADES, **changes: Any) -> bytes:
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "model": MODEL, "usage": USAGE, **changes}).encode()


def whole(status: int, content: bytes, **headers: str) -> Raw:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Length": str(len(content)), **named}, content


def said_of(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one sentence of a command that failed, which leaks nothing."""
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert not pieces(SECRET) & pieces(captured.err + captured.out)
    (line,) = [one for one in captured.err.splitlines() if "error:" in one]
    assert line.startswith("gpt4v_eval: error: ")
    return line


HTML = b"<!DOCTYPE html><title>Log in</title>"
BOMB = gzip.compress(b"x" * 10**8)


@pytest.mark.parametrize(
    ("raw", "message", "calls"),
    [
        (whole(200, HTML, Content_Type="text/html"),
         "got a web page instead of a chat completion", 1),
        (whole(204, b""), "the endpoint sent nothing", 6),
        (whole(200, b""), "the endpoint sent nothing", 6),
        (whole(200, b"\x1f\x8b\x08 no gzip", Content_Encoding="gzip"),
         "is not a chat completion", 6),
        (whole(200, BOMB, Content_Encoding="gzip"), "got more than 8,000,000 bytes", 6),
        (whole(200, b'data: {"choices": []}\n\n', Content_Type="text/event-stream"),
         "'data: {\"choices\": []}' is not a chat completion", 6),
        (whole(200, b"[" * 10**6), "is not a chat completion", 6),
        (whole(200, b"{}", Content_Type="text/html; charset=base64"),
         "'{}' is not a chat completion", 6),
        (whole(500, b"[" * 10**6), "HTTP 500: [[[", 6),
        (whole(500, HTML, Content_Type="text/html; charset=zlib"), "HTTP 500: <!DOCTYPE", 6),
        (whole(502, b'{"error": {"message": {"a": ["b"]}, "code": {}}}'), "HTTP 502: ", 6),
        (whole(503, b"", Retry_After="1e400"), "HTTP 503: no message", 1),
        (whole(429, b"", Retry_After="Fri, 31 Dec 99999 23:59:59 GMT"), "HTTP 429", 6),
        (whole(429, b"", Retry_After="nan"), "HTTP 429", 6),
        (whole(429, b"{}", Retry_After="-1e400"), "HTTP 429", 6),
        (whole(400, json.dumps({"error": f"x{SECRET[:20]}"}).encode()), "HTTP 400", 1),
        (whole(401, f"Bearer {SECRET}".encode()), "not accept the key (HTTP 401: Bearer [key])", 1),
        (whole(404, b"[" * 10**5), f"has no model '{MODEL}' (HTTP 404): it lists that model", 1),
        (whole(418, b"\x1b[2J\xff\xfe\x00tea"), "HTTP 418: ", 1),
        (whole(304, b""), "redirects to nowhere (HTTP 304)", 1),
        (whole(200, SECRET.encode() * 3 + b"\xff"), "'[key]", 6),
        (whole(200, b"x" * 60 + SECRET.encode()), "x[key]' is not a chat completion", 6),
        (whole(200, b'{"x": "%s"}' % SECRET.replace("-", "\\u002d").encode()), "[key]", 6),
    ],
)  # fmt: skip
def test_what_is_no_reply_is_one_sentence_and_the_rows_are_kept(
    inputs: Path, stub: Stub, raw: Raw, message: str, calls: int,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    stub.raw = lambda text: raw

    status = main([*flags_for(inputs, stub.url, first_wait_s=0.001, longest_wait_s=0.01), *ONE])

    folder = run_folder(inputs)
    assert len(rows_of(folder, "sent")) == len(rows_of(folder)) == len(stub.calls) == calls
    assert not pieces(SECRET) & pieces((folder / "judgements.jsonl").read_text())
    if rows_of(folder)[0]["outcome"] == "rejected":
        assert status == 0  # It is final, and counted as such.
        assert message in str(rows_of(folder)[0]["reason"])
        return
    assert status == 2
    assert message in said_of(capsys)
    # Nothing is asked again, and all of it is read again.
    stub.raw = lambda text: whole(200, completion())
    assert main([*flags_for(inputs, stub.url), *ONE]) == 0
    assert len(stub.calls) == calls + 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["other", "same"])
def test_a_redirect_is_not_followed(
    inputs: Path, stub: Stub, status: int, to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers, pictures and the key stay with the endpoint that was named."""
    with serve(Stub()) as other:
        target = (other if to == "other" else stub).url + f"/{SECRET}?token=secret"
        stub.raw = lambda text: whole(status, b"", Location=target)

        assert main([*flags_for(inputs, stub.url), *ONE]) == 2

        there = (
            other.url.removesuffix("/v1") if to == "other" else "another path of the same server"
        )
        said = said_of(capsys)
        assert f"redirects to {there} (HTTP {status}); redirects are not followed" in said
        assert "secret" not in said
        assert (len(stub.calls), len(other.calls)) == (1, 0)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_body_without_an_end_is_bounded_in_time_and_memory(
    inputs: Path, stub: Stub, status: int, encoding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.endless = b"x" * 2**16 if encoding == "identity" else gzip.compress(b"x" * 2**20)
    stub.raw = lambda text: (status, {"Content-Encoding": encoding}, b"")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert main([*flags_for(inputs, stub.url, max_attempts=2, timeout_s=30.0), *ONE]) == 2

    said = said_of(capsys)
    assert "xxx" in said
    assert status == 500 or encoding == "gzip" or "got more than 8,000,000 bytes" in said
    assert len(stub.calls) == 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_the_list_of_models_may_be_anything(
    inputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for listed in (None, [], 5, {"data": 5}, {"data": [5, {}, {"id": []}, {"id": "x" * 999}]},
                   {"data": [{"id": f"stub {SECRET}"}]}):  # fmt: skip
        assert all(isinstance(name, str) and len(name) < 999 for name in client._names(listed))


@pytest.mark.parametrize(
    "changes",
    [{"model": {}}, {"model": [SECRET]}, {"model": SECRET * 9}, {"usage": [1]},
     {"usage": {"prompt_tokens": 10**400}},
     {"usage": {"prompt_tokens": -5, "completion_tokens": 1.5}}],
)  # fmt: skip
def test_a_reply_with_something_odd_is_paid_once_and_read_for_ever(
    inputs: Path, stub: Stub, changes: dict[str, Any]
) -> None:
    """Must hold: one bad reply bricks no run, and what it does not say is counted at the most."""
    stub.raw = lambda text: whole(200, completion(**changes))

    assert main([*flags_for(inputs, stub.url), *ONE]) == 0
    assert main([*flags_for(inputs, stub.url), *ONE]) == 0
    assert main([*flags_for(inputs, stub.url), "--num-images", "2"]) == 0  # borrows it

    assert len(stub.calls) == 4
    for folder in (inputs / "runs/judge" / MODEL).iterdir():
        for name in ("judgements.jsonl", "metrics.json", "run.json"):
            content = (folder / name).read_text()
            assert not pieces(SECRET) & pieces(content)
            assert all(map(json.loads, content.splitlines() if name.endswith("l") else [content]))
        if "usage" in changes:
            costs = {row["request"]: row["most_usd"] for row in rows_of(folder, "sent")}
            assert all(row["cost_usd"] == costs[row["request"]]
                       for row in rows_of(folder) if row["request"])  # fmt: skip


def test_what_is_shown_and_stored_holds_no_piece_of_the_key(
    inputs: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reply that ends within the key, one in other forms, answers and ids that hold it."""
    rows = [json.dumps({"image_id": at, "caption": f"A dog {at} {SECRET}"}) for at in (1, 2)]
    (inputs / "captions_eah.jsonl").write_text("\n".join(rows) + "\n")
    texts = iter([f"Accuracy: {SECRET[:17]}", f"Both {SECRET[5:].upper()}", GRADES + SECRET,
                  f"no grades: {json.dumps(SECRET[3:20])}"])  # fmt: skip
    stub.raw = lambda text: whole(200, completion(next(texts), model=f"m-{SECRET[:12]}"))
    out = [*flags_for(inputs, stub.url), "--report", str(inputs / "out.html"),
           "--json", str(inputs / "out.json")]  # fmt: skip

    assert main(out) == 0

    captured = capsys.readouterr()
    assert len(stub.calls) == 4
    assert any(SECRET in call.text for call in stub.calls)  # What is judged is not changed.
    assert "[key]" in captured.out
    assert not pieces(SECRET) & pieces(captured.out + captured.err)
    files = [
        one
        for one in inputs.rglob("*")
        if one.is_file() and "captions" not in one.name and one.suffix != ".jpg"
    ]
    assert {"judgements.jsonl", "metrics.json", "run.json", "out.html", "out.json"} <= {
        one.name for one in files
    }
    for path in files:
        assert not pieces(SECRET) & pieces(path.read_bytes().decode("latin-1")), path


@pytest.mark.parametrize(
    "flags",
    [["--judge-model", SECRET], ["--judge-protocol", SECRET], ["--judge-mode", f"x{SECRET}"],
     ["--judge-base-url", f"http://127.0.0.1:1/{SECRET}"], ["--caption_key", SECRET],
     ["--judge-base-url", f"http://127.0.0.1:1/v1/{SECRET.replace('-', '%2D')}"],
     ["--report", f"/tmp/{SECRET}.html"], ["--api-key-file", SECRET],
     ["--judge-base-url", f"http://{SECRET}@127.0.0.1:1/v1"]],
    ids=lambda flags: flags[0],
)  # fmt: skip
def test_a_key_in_a_flag_is_refused_and_not_shown(
    inputs: Path, stub: Stub, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags_for(inputs, stub.url), *ONE, *flags]) == 2

    assert len(said_of(capsys)) > 30
    assert not stub.calls
    assert not (inputs / "runs").exists()


def test_a_key_in_the_settings_file_or_the_variable_is_refused_and_not_shown(
    inputs: Path, stub: Stub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hexadecimal = "0123456789abcdef0123456789abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", hexadecimal)
    for change in ({"judge_model": hexadecimal}, {"judge_base_url": f"{stub.url}/{hexadecimal}"}):
        assert main([*flags_for(inputs, stub.url, prices={}, **change), *ONE]) == 2
        assert hexadecimal not in said_of(capsys)
    flags = flags_for(inputs, stub.url, judge_base_url=None)
    for url in (f"http://h/{hexadecimal}", "http://u:hunter2@h/v1", "hunter2@h", "http://h:99999/"):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        assert main([*flags, *ONE]) == 2
        said = said_of(capsys)
        assert hexadecimal not in said
        assert "hunter2" not in said
    assert not stub.calls


@pytest.mark.parametrize(
    ("name", "value"),
    [("HTTP_PROXY", "foo://user:hunter2@h"), ("ALL_PROXY", "http://u:hunter2@h:port"),
     ("SSL_CERT_FILE", "/nowhere/hunter2.pem"), ("OPENAI_ORG_ID", "\u00e4hunter2"),
     ("OPENAI_PROJECT_ID", "a\nhunter2")],
)  # fmt: skip
def test_a_wrong_environment_is_one_sentence(
    inputs: Path, name: str, value: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_PROXY")
    with serve(Stub(answer=lambda text: GRADES)) as stub:
        status = main([*flags_for(inputs, stub.url), *ONE])
        if status == 0:  # As where the certificates are not needed.
            assert name == "SSL_CERT_FILE"
            return

    said = said_of(capsys)
    assert status == 2
    assert "hunter2" not in said
    assert "check " in said


def test_proxies_of_the_environment_are_used(
    inputs: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTP_PROXY", stub.url.removesuffix("/v1"))
    stub.raw = lambda text: whole(200, completion())

    assert main([*flags_for(inputs, "http://judge.invalid/v1"), *ONE]) == 0

    assert len(stub.calls) == 1


def test_a_pipe_or_folder_in_the_place_of_the_own_file_is_one_sentence(
    inputs: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags_for(inputs, stub.url), *ONE]) == 0
    path = run_folder(inputs) / "judgements.jsonl"
    path.unlink()
    os.mkfifo(path)

    assert main([*flags_for(inputs, stub.url), *ONE]) == 2

    assert f"{path} is damaged, it is not a regular file; nothing was sent" in said_of(capsys)
    assert len(stub.calls) == 1


def test_signals_do_afterwards_what_they_did_before() -> None:
    """The event loop alone would leave SIGTERM to the system, which ends the process at once."""
    called: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: called.append("before"))

    async def inside() -> None:
        with ask._signals({signal.SIGTERM: KeyboardInterrupt}, lambda kind: called.append("loop")):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.1)

    try:
        asyncio.run(inside())
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert called == ["loop", "before"]
