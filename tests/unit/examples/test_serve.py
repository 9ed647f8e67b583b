"""`examples/serve.py` under load: requests that join, end and go away, and every token as if each had been alone."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from batching import Engine, Limits, greedy
from lm import Decoder, Layer
from serve import application

pytestmark = pytest.mark.kernels

VOCABULARY, ROWS, MAX_LEN, WAITING = 256, 8, 96, 64
REQUESTS, CANCELLED, AT_ONCE = 200, 20, 40
NEAR = 1e-3
"""Logits closer than this may change places by rounding alone: such requests are drawn anew."""
PATTERN = "pattern p { heads 4 kv 2  causal  attend sink(4) | window(12) }"


@dataclass(frozen=True, slots=True)
class Served:
    engine: Engine
    model: Decoder
    address: tuple[str, int]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of steps this small, the second one's part takes less time than to wake it
    model = Decoder(VOCABULARY, 32, 4, [Layer(PATTERN)] * 2, kv_heads=2, head_dim=16, embedding_std=1.0, seed=0).eval()
    greedy(model, [1, 2, 3], 2)  # builds the kernels
    engine = Engine(model, VOCABULARY, Limits(ROWS, MAX_LEN, WAITING, chunk=16))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application(engine), log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield Served(engine, model, listening.getsockname())
    server.should_exit = True
    thread.join(20)
    listening.close()
    torch.set_num_threads(threads)
    assert not thread.is_alive()


@dataclass(frozen=True, slots=True)
class Asked:
    """`until`: after how many tokens the client goes away; None: it stays."""

    prompt: list[int]
    tokens: list[int]
    stream: bool
    until: int | None = None


async def post(address: tuple[str, int], asked: object) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends a request; its status, and the rest of the answer."""
    reader, writer = await asyncio.open_connection(*address)
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    head = f"POST /generate HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    status = int((await reader.readline()).split()[1])
    while (await reader.readline()).strip():
        pass
    return status, reader, writer


async def answer(address: tuple[str, int], asked: Asked) -> list[int]:
    """The tokens that come, as long as the client stays."""
    request = {"prompt": asked.prompt, "max_tokens": len(asked.tokens), "stream": asked.stream}
    status, reader, writer = await post(address, request)
    assert status == 200
    tokens: list[int] = []
    text = ""
    if asked.stream:
        while len(tokens) != asked.until:
            line = await reader.readline()
            assert line, "the answer has no end"
            if line.startswith(b"data: "):  # the others say how long the parts are
                event = json.loads(line.removeprefix(b"data: "))
                text += event["text"]
                if "done" in event:
                    assert event["done"] == len(tokens) and text == bytes(tokens).decode("utf-8", "replace")
                    break
                tokens.append(event["token"])
    elif asked.until is None:
        tokens = json.loads(await reader.read())["tokens"]
    writer.close()
    return tokens


def stats(address: tuple[str, int]) -> dict[str, Any]:
    with socket.create_connection(address) as connection:
        connection.sendall(b"GET /stats HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: connection.recv(4096), b""))
    found: dict[str, Any] = json.loads(text.partition(b"\r\n\r\n")[2])
    return found


def drawn(model: Decoder, count: int, gone: int, seed: int) -> list[Asked]:
    """Requests, and what each is to get; `gone` of the clients go away, before the first token or later."""
    draw, found = random.Random(seed), []
    while len(found) < count:
        prompt = [draw.randrange(VOCABULARY) for _ in range(draw.randint(1, 48))]
        tokens, ahead = greedy(model, prompt, draw.randint(1, 16))
        if ahead > NEAR:
            found.append(Asked(prompt, tokens, stream=draw.random() < 0.7))
    for nth in draw.sample(range(count), gone):
        prompt = found[nth].prompt
        tokens = greedy(model, prompt, MAX_LEN - len(prompt))[0]  # so many that there are more when it has gone
        found[nth] = Asked(prompt, tokens, stream=True, until=draw.randint(0, 6))
    return found


async def load(address: tuple[str, int], requests: list[Asked]) -> list[list[int]]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(asked: Asked) -> list[int]:
        async with places:
            return await answer(address, asked)

    return await asyncio.gather(*map(one, requests))


def resident() -> int:
    """Bytes of this process, with the server in it."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def settled(served: Served) -> dict[str, Any]:
    """What the server says once nobody is being answered."""
    for _ in range(500):
        found = stats(served.address)
        if not (found["rows_in_use"] or found["waiting"]):
            return found
        time.sleep(0.01)
    raise AssertionError(f"rows are never given back: {found}")


def test_two_hundred_requests(served: Served) -> None:
    requests = drawn(served.model, REQUESTS, CANCELLED, seed=0)
    held = [cache.keys.data_ptr() for cache in served.engine.caches]
    before, half = settled(served), REQUESTS // 2
    found = asyncio.run(load(served.address, requests[:half]))
    memory = resident()
    found += asyncio.run(load(served.address, requests[half:]))
    wrong = [
        nth
        for nth, (tokens, asked) in enumerate(zip(found, requests, strict=True))
        if tokens != asked.tokens[: asked.until]
    ]
    assert not wrong
    after = settled(served)
    gone = after["cancelled"] - before["cancelled"]
    assert CANCELLED // 2 <= gone <= CANCELLED, "an answer may be there before its client goes away, but not often"
    assert after["finished"] - before["finished"] == REQUESTS - gone
    assert after["cache_bytes"] == before["cache_bytes"]
    assert [cache.keys.data_ptr() for cache in served.engine.caches] == held
    assert all(cache.released == tuple(range(ROWS)) for cache in served.engine.caches)
    more = resident() - memory
    assert more < 8 << 20, f"{more} bytes more"


@pytest.mark.parametrize(
    ("asked", "status", "reason"),
    [
        (b"{", 400, "expected a JSON object"),
        (b"[" * 1000 + b"]" * 1000, 400, "expected a JSON object"),
        ([1], 400, "expected a JSON object, got list"),
        ({"max_tokens": 1}, 400, "expected a prompt, text or a list of tokens"),
        ({"prompt": [1, True]}, 400, "expected a prompt, text or a list of tokens"),
        ({"prompt": [1, 256]}, 400, "expected tokens from 0 to 255, got 1 to 256"),
        ({"prompt": []}, 400, "expected a prompt and at least 1 new token, got 0 tokens and 16"),
        ({"prompt": "a", "max_tokens": 1.5}, 400, "expected an integer for max_tokens"),
        ({"prompt": "a", "temperature": 1}, 400, "expected prompt, max_tokens and stream, got 'temperature'"),
        ({"prompt": [1] * 90, "max_tokens": 7}, 413, "expected at most 96 tokens of prompt and answer, got 90 + 7"),
        (b" " * 4000, 413, "expected a body of at most"),
    ],
)
def test_what_is_refused(served: Served, asked: object, status: int, reason: str) -> None:
    async def refused() -> tuple[int, dict[str, str]]:
        found, reader, writer = await post(served.address, asked)
        error = json.loads(await reader.read())
        writer.close()
        return found, error

    found, error = asyncio.run(refused())
    assert found == status and reason in error["error"]


def test_a_queue_has_an_end(served: Served) -> None:
    """One more than may be answered and wait; the others get their tokens."""
    request = {"prompt": "to be answered", "max_tokens": MAX_LEN - 14}

    async def many() -> list[tuple[int, dict[str, Any]]]:
        async def one() -> tuple[int, dict[str, Any]]:
            status, reader, writer = await post(served.address, request)
            found = json.loads(await reader.read())
            writer.close()
            return status, found

        return await asyncio.gather(*(one() for _ in range(ROWS + 1 + WAITING + 20)))

    found = asyncio.run(many())
    full = [error for status, error in found if status == 503]
    assert full and full[0]["error"] == f"{WAITING} requests are waiting already"
    answers = {tuple(each["tokens"]) for status, each in found if status == 200}
    assert answers == {tuple(greedy(served.model, list(b"to be answered"), MAX_LEN - 14)[0])}
    assert len(full) + sum(status == 200 for status, _ in found) == len(found)
    settled(served)


def test_an_error_of_the_model_ends_the_requests_at_hand(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none that come after."""
    asked = Asked([5, 6, 7], greedy(served.model, [5, 6, 7], 20)[0], stream=True)
    forward, steps = Decoder.forward, iter(range(1000))

    def fails(model: Decoder, symbols: torch.Tensor, caches: Any = None) -> torch.Tensor:
        if next(steps) == 5:
            raise MemoryError
        return forward(model, symbols, caches)

    monkeypatch.setattr(Decoder, "forward", fails)

    async def failed() -> list[Any]:
        _, reader, writer = await post(served.address, {"prompt": [5, 6, 7], "max_tokens": 20, "stream": True})
        lines = (await reader.read()).split(b"\n")
        writer.close()
        return [json.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith(b"data: ")]

    told = asyncio.run(failed())
    assert told[-1]["error"] == "MemoryError in the model" and len(told) == 6
    assert asyncio.run(answer(served.address, asked)) == asked.tokens
    settled(served)
