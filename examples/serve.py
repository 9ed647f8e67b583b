"""An HTTP server with continuous batching over KV caches whose sequences join and leave.

POST /generate with a JSON object: "prompt" (text, of which the bytes are the tokens, or a list of tokens),
"max_tokens", and "stream" (server-sent events, one a token; else one JSON object at the end). A prompt beyond the
limits is refused with 413 and the reason, a request while too many wait with 503; a client that closes its connection
frees its row. GET /stats says what the server holds.

    pip install "sparsec[serve]"
    python examples/serve.py --memory 64
    curl -N localhost:8000/generate -d '{"prompt": "Call me", "max_tokens": 20, "stream": true}'

The model is the decoder of `lm.py` with LongGen's layers and random weights; `batching.py` has the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import codecs
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from batching import Busy, Engine, Limits, Refused, Request, greedy, rows_for
from generate import VOCABULARY, patterns
from lm import Decoder, Layer
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

BODY_BYTES_A_TOKEN = 12
"""Of a request's text: a token is at most a number with its comma, or an escaped character."""


@dataclass(frozen=True, slots=True)
class Gone:
    """In place of a token: the client has closed its connection."""


@dataclass(slots=True)
class Answer:
    """A request at the engine, and what it has told."""

    request: Request
    told: asyncio.Queue[int | str | Gone | None]
    tokens: list[int] = field(default_factory=list)
    error: str | None = None


def application(engine: Engine) -> Starlette:
    """The server of an engine, which it starts and stops."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            await asyncio.to_thread(engine.stop)

    async def generate(http: HttpRequest) -> Response:
        try:
            asked = parsed(await body_of(http, BODY_BYTES_A_TOKEN * engine.limits.max_len + 1024))
            answer = begun(engine, asked)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        except Refused as error:
            return JSONResponse({"error": str(error)}, 413)
        except Busy as error:
            return JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})
        if asked["stream"]:
            return StreamingResponse(
                events(engine, http, answer), 200, {"Cache-Control": "no-store"}, "text/event-stream"
            )
        async for _ in tokens_of(engine, http, answer):
            pass
        if answer.error is not None:
            return JSONResponse({"error": answer.error}, 500)
        return JSONResponse({"tokens": answer.tokens, "text": bytes(answer.tokens).decode("utf-8", "replace")})

    async def stats(http: HttpRequest) -> Response:
        return JSONResponse(
            {
                "rows": engine.limits.rows,
                "rows_in_use": len(engine.rows),
                "waiting": len(engine.waiting) + (engine.reading is not None),
                "finished": engine.finished,
                "cancelled": engine.dropped,
                "cache_bytes": engine.nbytes,
            }
        )

    routes = [Route("/generate", generate, methods=["POST"]), Route("/stats", stats)]
    return Starlette(routes=routes, lifespan=lifespan)


async def body_of(http: HttpRequest, most: int) -> bytes:
    """Raises Refused for more than `most` bytes, of which it reads no more."""
    body = bytearray()
    async for part in http.stream():
        body += part
        if len(body) > most:
            raise Refused(f"expected a body of at most {most} bytes, got more")
    return bytes(body)


def parsed(body: bytes) -> dict[str, Any]:
    """prompt: tokens; max_tokens; stream. Raises ValueError."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:  # of bad UTF-8 too
        raise ValueError(f"expected a JSON object, got {error}") from None
    if not isinstance(asked, dict):
        raise ValueError(f"expected a JSON object, got {type(asked).__name__}")
    unknown = sorted(set(asked) - {"prompt", "max_tokens", "stream"})
    if unknown:
        raise ValueError(f"expected prompt, max_tokens and stream, got {unknown[0]!r:.80}")
    prompt, new, stream = asked.get("prompt"), asked.get("max_tokens", 16), asked.get("stream", False)
    if isinstance(prompt, str):
        prompt = list(prompt.encode("utf-8", "replace"))
    if not isinstance(prompt, list) or any(type(token) is not int for token in prompt):
        raise ValueError("expected a prompt, text or a list of tokens")
    if type(new) is not int or type(stream) is not bool:
        raise ValueError(
            f"expected an integer for max_tokens and true or false for stream, got {new!r:.40} and {stream!r:.40}"
        )
    return {"prompt": prompt, "max_tokens": new, "stream": stream}


def begun(engine: Engine, asked: dict[str, Any]) -> Answer:
    """Hands a request to the engine, whose thread puts what it tells into a queue of this one's loop."""
    loop, told = asyncio.get_running_loop(), asyncio.Queue[int | str | Gone | None]()

    def tell(what: int | str | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(told.put_nowait, what)

    request = Request(asked["prompt"], asked["max_tokens"], tell)
    engine.submit(request)
    return Answer(request, told)


async def tokens_of(engine: Engine, http: HttpRequest, answer: Answer) -> AsyncIterator[int]:
    """Tokens as they come, until the last one, an error, or the end of the connection; then nobody waits for more."""

    async def watch() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass
        engine.cancel(answer.request)
        answer.told.put_nowait(Gone())

    watching = asyncio.create_task(watch())
    try:
        while isinstance(what := await answer.told.get(), int):
            answer.tokens.append(what)
            yield what
        answer.error = what if isinstance(what, str) else None
    finally:
        watching.cancel()
        engine.cancel(answer.request)


async def events(engine: Engine, http: HttpRequest, answer: Answer) -> AsyncIterator[str]:
    """Server-sent events: one a token, and a last one."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async for token in tokens_of(engine, http, answer):
        yield f"data: {json.dumps({'token': token, 'text': decoder.decode(bytes([token]))})}\n\n"
    rest = {"text": decoder.decode(b"", final=True)}
    end = rest | ({"done": len(answer.tokens)} if answer.error is None else {"error": answer.error})
    yield f"data: {json.dumps(end)}\n\n"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--memory", type=int, default=64, help="MB of keys and values; they say how many rows there are"
    )
    parser.add_argument("--max-len", type=int, default=4096, help="tokens of a prompt and its answer")
    parser.add_argument("--waiting", type=int, default=64, help="requests that may wait")
    parser.add_argument("--chunk", type=int, default=256, help="tokens of a prompt read between two steps")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> None:
    options = arguments().parse_args()
    layers = [Layer(pattern) for pattern in patterns(options.layers)]
    model = Decoder(VOCABULARY, 256, 8, layers, kv_heads=4, head_dim=64, embedding_std=1.0, seed=options.seed)
    rows = rows_for(model, options.max_len, options.memory * 1_000_000)
    engine = Engine(model, VOCABULARY, Limits(rows, options.max_len, options.waiting, options.chunk))
    greedy(model, [0, 1], 2)  # builds the kernels
    print(f"{rows} rows of up to {options.max_len} tokens, {engine.nbytes / 1e6:.1f} MB of keys and values")
    uvicorn.run(application(engine), host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
