"""The playground answers its own page alone, within limits, and tells problems and draws as the command line does."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from invoking import invoke

from sparsec.playground.answers import TEXT_LIMIT, PlayRequest, answer
from sparsec.playground.server import BODY_LIMIT, START, application

PORT = 8765
HOST = {"host": f"127.0.0.1:{PORT}"}
OWN = {**HOST, "origin": f"http://127.0.0.1:{PORT}", "content-type": "application/json"}


def send(
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes = b"",
    text: str = START,
    port: int = PORT,
    gone: bool = False,
) -> tuple[int, dict[str, str], str]:
    """The status, headers and body that the application gives; `gone`: the client leaves once it has sent its body."""
    found: list[dict[str, Any]] = []

    async def run() -> None:
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not pending and not gone:
                await asyncio.Event().wait()
            return pending.pop(0) if pending else {"type": "http.disconnect"}

        async def sent(message: Any) -> None:
            found.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", PORT),
        }
        await application(port, text)(scope, receive, sent)

    asyncio.run(run())
    start = found[0]
    told = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], told, b"".join(each.get("body", b"") for each in found[1:]).decode()


def ask(**fields: object) -> tuple[int, dict[str, Any]]:
    data = {"text": START, "pattern": None, "heads": 2, "kv_heads": None, "seq_len": 500, **fields}
    status, _, body = send("POST", "/draw", OWN, json.dumps(data).encode())
    return status, json.loads(body)


def test_the_page_holds_the_text_escaped_and_may_reach_nothing_else() -> None:
    status, headers, body = send("GET", "/", HOST, text="# </textarea><script>alert(1)</script>")
    assert status == 200 and "alert(1)</script>" not in body and "&lt;/textarea&gt;" in body
    policy = headers["content-security-policy"]
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert (
        policy.startswith("default-src 'none'; ") and "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    )
    assert body.count("<script") == body.count(f'<script nonce="{nonce}">') == 1
    assert 'sandbox="allow-scripts"' in body and headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {"host": "evil.example:8765"}, 421),
        ("GET", "/", {"host": "127.0.0.1:1"}, 421),
        ("GET", "/", {}, 421),
        ("GET", "/", {**HOST, "origin": "https://evil.example"}, 403),
        ("POST", "/draw", {**OWN, "origin": "http://evil.example"}, 403),
        ("POST", "/draw", {**OWN, "origin": "null"}, 403),
        ("POST", "/draw", {**HOST, "content-type": "application/json"}, 403),
        ("POST", "/draw", {**OWN, "content-type": "text/plain"}, 415),
        ("GET", "/draw", HOST, 405),
        ("GET", "/../pyproject.toml", HOST, 404),
        ("HEAD", "/", {**HOST, "origin": "https://evil.example"}, 403),
        ("GET", "/", {"host": "localhost"}, 421),
    ],
)
def test_others_are_refused(method: str, path: str, headers: dict[str, str], status: int) -> None:
    assert send(method, path, headers, b"{}")[0] == status


def test_the_names_of_this_machine() -> None:
    assert send("GET", "/", {"host": f"LocalHost:{PORT}"})[0] == 200
    assert send("HEAD", "/", HOST)[0] == 200
    for host in ("127.0.0.1", "localhost", "localhost:80"):
        own = {"host": host, "origin": f"http://{host}", "content-type": "application/json"}
        assert send("GET", "/", {"host": host}, port=80)[0] == 200
        assert send("POST", "/draw", own, b"{}", port=80)[0] == 400


def test_nothing_is_drawn_for_a_client_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[PlayRequest] = []

    def noted(request: PlayRequest) -> dict[str, object]:
        asked.append(request)
        return {"page": None}

    monkeypatch.setattr("sparsec.playground.server.answer", noted)
    body = json.dumps({"text": START, "seq_len": 9}).encode()
    assert send("POST", "/draw", OWN, body, gone=True)[0] == 204 and not asked
    assert send("POST", "/draw", OWN, body)[0] == 200 and len(asked) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"\xff", b"[" * 100_000, json.dumps({"text": "x" * (TEXT_LIMIT + 1), "seq_len": 9}).encode()],
)
def test_what_is_no_request(body: bytes) -> None:
    status, _, said = send("POST", "/draw", OWN, body)
    assert status == 400 and json.loads(said)["error"].startswith("expected ")


@pytest.mark.parametrize(
    "fields", [{"heads": 0}, {"heads": True}, {"kv_heads": 9999}, {"seq_len": None}, {"seq_len": 2**40}]
)
def test_sizes_have_limits(fields: dict[str, object]) -> None:
    status, said = ask(**fields)
    assert status == 400 and said["error"].startswith("expected ")
    assert send("POST", "/draw", OWN, b" " * (BODY_LIMIT + 1))[0] == 413


def test_problems_are_told_as_by_check(tmp_path: Path) -> None:
    text = "pattern p { causal attend windw(3) }\n"
    status, said = ask(text=text)
    assert (status, said["errors"], said["page"]) == (200, True, None)
    (tmp_path / "playground.sparse").write_text(text)
    shown = invoke("check", tmp_path / "playground.sparse").stdout.replace(f"{tmp_path}/", "")
    assert said["diagnostics"] in shown and "did you mean" in said["diagnostics"]


def test_a_warning_is_told_and_the_picture_comes() -> None:
    status, said = ask(text="pattern p { heads 1 causal attend window(8) | window(4) }")
    assert status == 200 and "warning[" in said["diagnostics"] and not said["errors"]
    assert "<!DOCTYPE html>" in said["page"] and said["page"].count('<script nonce="') == 1


def test_the_pattern_that_is_asked_for_is_drawn() -> None:
    text = "pattern a { causal attend full }\npattern b { causal attend window(3) }"
    assert ask(text=text, pattern="b")[1]["drawn"] == "b"
    said = ask(text=text, pattern="gone")[1]
    assert said["drawn"] == "a" and said["patterns"] == ["a", "b"]


def test_what_heads_make_wrong_is_told() -> None:
    said = ask(heads=6, kv_heads=4)[1]
    assert said["errors"] and "error: " in said["diagnostics"] and said["page"] is None
    said = ask(text="pattern p { heads 4096 causal attend full }")[1]
    assert "at most 256 heads" in said["diagnostics"]
    said = ask(text="pattern p { where h == 9 attend full otherwise attend causal }")[1]
    assert said["errors"] and "error[" in said["diagnostics"]


@pytest.mark.parametrize(
    "text",
    ["", "\0", "pattern p { attend " + "(" * 5000, "pattern p { attend window(" + "9" * 5000 + ") }", "#" * TEXT_LIMIT],
)
def test_hostile_texts(text: str) -> None:
    said = answer(PlayRequest(text, None, None, None, 64))
    assert said["errors"] and "error[" in str(said["diagnostics"])


def test_a_file_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "long.sparse"
    path.write_text("#" * (TEXT_LIMIT + 1))
    result = invoke("play", path)
    assert result.exit_code == 2 and "at most 65536 characters" in result.stderr


def test_the_port_is_taken_before_the_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = invoke("play", "--open", "--port", str(port))
        assert result.exit_code == 2 and f"got 127.0.0.1:{port}: " in result.stderr
        assert not result.stdout and not opened

    def serve(_: uvicorn.Server, sockets: list[socket.socket]) -> None:
        assert sockets[0].getsockname() == ("127.0.0.1", port)
        assert opened == [f"http://127.0.0.1:{port}/"]
        socket.create_connection(("127.0.0.1", port), 5).close()
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", serve)
    result = invoke("play", "--open", "--port", str(port))
    assert result.exit_code == 0 and result.stdout.startswith(f"http://127.0.0.1:{port}/ ")
