"""`vllm serve` on loopback: started, asked by many at once, looked at, cancelled and killed.

Invariant: a server that was started here is ended here, whatever happens between.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp

START_SECONDS = 600
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(name)s %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stdout"}},
    "loggers": {
        "vllm": {"handlers": ["out"], "level": "INFO", "propagate": False},
        "sparsec": {"handlers": ["out"], "level": "DEBUG", "propagate": False},
    },
}


@dataclass(slots=True)
class Server:
    url: str
    process: subprocess.Popen[bytes]
    log: Path
    peak: float = 0.0
    pages: int = 0

    def kill(self) -> None:
        """At once, with the processes that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def served(
    model: Path, log: Path, *options: str, plugin: bool = True, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Server]:
    """A server for a model, from when it answers; `plugin`: with sparsec's plug-in loaded; `variables`: of the
    environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = log.with_suffix(".logging.json")
    settings.write_text(json.dumps(LOGGING))
    environment = {**os.environ, "VLLM_LOGGING_CONFIG_PATH": str(settings), "VLLM_NO_USAGE_STATS": "1"}
    environment |= {"VLLM_PLUGINS": "sparsec" if plugin else "", "HF_HUB_OFFLINE": "1", **variables}
    command = ["vllm", "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--served-model-name", "m"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *options], stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        asyncio.run(_until_ready(server))
        found = re.search(r"num_gpu_blocks[^0-9]*(\d+)|GPU blocks: (\d+)", log.read_text())
        server.pages = int(next(filter(None, found.groups()))) if found else 0
        yield server
    finally:
        server.kill()


def refusal(model: Path, log: Path, *options: str) -> str:
    """What a server that is not to start says of sparsec; nothing where it starts."""
    try:
        with served(model, log, *options):
            return ""
    except SystemExit:
        found = re.findall(r"CallError: (.*)", log.read_text())
        return str(found[0]) if found else ""


async def _until_ready(server: Server) -> None:
    end = time.monotonic() + START_SECONDS
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < end:
            if server.process.poll() is not None:
                raise SystemExit(f"the server ended while it started:\n{server.log.read_text()[-6000:]}")
            try:
                async with session.get(f"{server.url}/health") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)
    raise SystemExit(f"no server after {START_SECONDS} s:\n{server.log.read_text()[-6000:]}")


@dataclass(frozen=True, slots=True)
class Asked:
    prompt: list[int]
    tokens: int
    cancel_after: float | None = None


@dataclass(slots=True)
class Answer:
    """`status`: of HTTP, 0 where the request was cancelled; `times`: seconds until each token came."""

    status: int
    ids: list[int] = field(default_factory=list)
    error: str = ""
    times: list[float] = field(default_factory=list)


def ask(server: Server, requests: Sequence[Asked]) -> list[Answer]:
    """All at once; meanwhile the server's use of pages is looked at."""
    return asyncio.run(_ask(server, requests))


async def _ask(server: Server, requests: Sequence[Asked]) -> list[Answer]:
    timeout = aiohttp.ClientTimeout(total=3600)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        watching = asyncio.create_task(_watch(server, session))
        answers = await asyncio.gather(*(_one(server, session, each) for each in requests))
        watching.cancel()
    return list(answers)


async def _one(server: Server, session: aiohttp.ClientSession, asked: Asked) -> Answer:
    body = {"model": "m", "prompt": asked.prompt, "max_tokens": asked.tokens, "temperature": 0}
    body |= {"ignore_eos": True, "return_token_ids": True, "stream": True}
    call = _post(server, session, body)
    if asked.cancel_after is None:
        return await call
    try:
        return await asyncio.wait_for(call, asked.cancel_after)
    except TimeoutError:
        return Answer(0)


async def _post(server: Server, session: aiohttp.ClientSession, body: dict[str, Any]) -> Answer:
    start = time.perf_counter()
    async with session.post(f"{server.url}/v1/completions", json=body) as answer:
        if answer.status != 200:
            return Answer(answer.status, error=(await answer.text())[:300])
        found = Answer(200)
        async for line in answer.content:
            if line.startswith(b"data: {"):
                new = json.loads(line[6:])["choices"][0].get("token_ids") or []
                found.ids += new
                found.times += [time.perf_counter() - start] * len(new)
        return found


async def _watch(server: Server, session: aiohttp.ClientSession) -> None:
    while True:
        server.peak = max(server.peak, (await _metrics(server, session))["vllm:kv_cache_usage_perc"])
        await asyncio.sleep(0.05)


async def _metrics(server: Server, session: aiohttp.ClientSession) -> dict[str, float]:
    async with session.get(f"{server.url}/metrics") as answer:
        text = await answer.text()
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    pairs = (line.rsplit(" ", 1) for line in lines)
    return {name.partition("{")[0]: float(value) for name, value in pairs}


def metrics(server: Server) -> dict[str, float]:
    async def read() -> dict[str, float]:
        async with aiohttp.ClientSession() as session:
            return await _metrics(server, session)

    return asyncio.run(read())


def settled(server: Server, seconds: float = 30.0) -> float:
    """The share of pages in use once nothing runs."""
    end = time.monotonic() + seconds
    while True:
        now = metrics(server)
        if now["vllm:num_requests_running"] == now["vllm:num_requests_waiting"] == 0 or time.monotonic() > end:
            return now["vllm:kv_cache_usage_perc"]
        time.sleep(0.2)
