"""The playground as an ASGI application, for a browser on the same machine.

Invariant: it answers no other host's name and no other origin's page, so that no page of the web can reach it through
a browser; a body has a limit; one request is worked on at a time; the page may load and send nothing elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from html import escape

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sparsec._resources import read_data
from sparsec.diagnostics.model import CallError
from sparsec.playground.answers import TEXT_LIMIT, answer, asked_of

BODY_LIMIT = 6 * TEXT_LIMIT + 4096
"""Bytes of a request: a character takes at most six, escaped."""
HTTP_PORT = 80
"""The port that a browser leaves out of an address."""
START = """# Near keys, and one block in eight far away: another one for each head.
pattern s2(local = 8b, every = 8b) {
    block 64
    causal
    attend window(local) | stride(every, phase = -h)
}
"""


def application(port: int, text: str = START) -> ASGIApp:
    """The application that is reached at `port` of this machine and begins with `text`."""
    nonce = secrets.token_urlsafe(16)
    lock = asyncio.Lock()

    async def index(_: Request) -> Response:
        return HTMLResponse(_index(text, nonce))

    async def draw(request: Request) -> Response:
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            return JSONResponse({"error": "expected application/json"}, 415)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > BODY_LIMIT:
                return JSONResponse({"error": f"expected at most {BODY_LIMIT} bytes"}, 413)
        try:
            asked = asked_of(json.loads(bytes(body)))
        except (CallError, ValueError, RecursionError) as error:
            return JSONResponse({"error": str(error) if isinstance(error, CallError) else "expected JSON"}, 400)
        async with lock:
            if await request.is_disconnected():  # while it waited
                return Response(status_code=204)
            said = await asyncio.to_thread(answer, asked)
        if isinstance(said["page"], str):
            said["page"] = said["page"].replace("<script>", f'<script nonce="{nonce}">', 1)
        return JSONResponse(said)

    routes = [Route("/", index, methods=["GET"]), Route("/draw", draw, methods=["POST"])]
    return Guard(Starlette(routes=routes), port, nonce)


class Guard:
    """Refuses requests that name another host, or come from another origin; and says what a page may do."""

    def __init__(self, app: ASGIApp, port: int, nonce: str) -> None:
        self.app = app
        names = ("127.0.0.1", "localhost")
        self.hosts = {f"{name}:{port}" for name in names} | set(names if port == HTTP_PORT else ())
        self.policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; connect-src 'self'; "
            "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        origin = request.headers.get("origin")
        if request.headers.get("host", "").lower() not in self.hosts:
            await PlainTextResponse("expected this machine's own name", 421)(scope, receive, send)
        elif (origin is None and request.method not in ("GET", "HEAD")) or (
            origin is not None and origin.lower().removeprefix("http://") not in self.hosts
        ):
            await PlainTextResponse("expected a request of this page", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, self._with_headers(send))

    def _with_headers(self, send: Send) -> Send:
        own = [
            (b"content-security-policy", self.policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-store"),
        ]

        async def sent(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *own]}  # type: ignore[misc]  # a list of pairs
            await send(message)

        return sent  # type: ignore[return-value]  # a message is a mutable mapping, here a new one


def _index(text: str, nonce: str) -> str:
    css, script = (read_data(f"templates/pictures/{name}") for name in ("page.css", "play.js"))
    own = read_data("templates/pictures/play.css")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="color-scheme" content="light dark">
<title>sparsec play</title>
<style>
{css}{own}</style>
</head>
<body>
<main>
<section>
<textarea id="text" spellcheck="false" autocomplete="off" aria-label="the text of a .sparse file">
{escape(text)}</textarea>
<div class="controls">
<label>pattern <select id="pattern"></select></label>
<label>heads <input id="heads" type="number" min="1" placeholder="8"></label>
<label>KV heads <input id="kv_heads" type="number" min="1" placeholder="as heads"></label>
<label>tokens <input id="seq_len" type="number" min="1" value="4096"></label>
</div>
<pre id="diagnostics" aria-live="polite"></pre>
</section>
<iframe id="picture" sandbox="allow-scripts" title="the pairs of each head"></iframe>
</main>
<script nonce="{nonce}">
{script}</script>
</body>
</html>
"""
