"""What every part of the run does: its models, its servers' options, and how it holds tokens against transformers.

Invariant: a part that finds something wrong ends with a message and status 1.
"""

from __future__ import annotations

import random
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from models import Reference, Sizes, prompt, save
from server import Answer, Asked, Server

PAGE = 32
SINK_WINDOW = "pattern p { causal  attend sink(32) | window(256) }"
SIZES = Sizes()
NEW = 24
"""Tokens that a request asks for."""
EARLY = re.compile(r"had (\d+) pages, at most (\d+) at a time, (\d+) freed early")


def folder_of_run() -> Path:
    if len(sys.argv) != 2:
        raise SystemExit("expected the folder of the run")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the servers
    return Path(sys.argv[1])


def model_of(folder: Path, name: str, text: str, sizes: Sizes = SIZES) -> Path:
    """Saved once a run."""
    where = folder / name
    return where if (where / "config.json").exists() else save(where, text, sizes)


def options(pages: int, longest: int, chunk: int = 512, seqs: int = 64, dtype: str = "float32") -> tuple[str, ...]:
    """Of `vllm serve`: so many pages, prompts in chunks."""
    asked = {"block-size": PAGE, "num-gpu-blocks-override": pages, "max-model-len": longest, "dtype": dtype}
    asked |= {"max-num-batched-tokens": chunk, "max-num-seqs": seqs, "gpu-memory-utilization": 0.2}
    return (*(part for name, value in asked.items() for part in (f"--{name}", str(value))), "--enforce-eager")


def mixed(count: int, longest: int, seed: int) -> list[Asked]:
    """Prompts of 8 to `longest` tokens, as many of each magnitude."""
    draw = random.Random(seed)
    lengths = [round(8 * (longest / 8) ** draw.random()) for _ in range(count - 2)] + [longest, longest - 1]
    draw.shuffle(lengths)
    return [Asked(prompt(length, seed * 1000 + n), NEW) for n, length in enumerate(lengths)]


def compare(reference: Reference, requests: Sequence[Asked], answers: Sequence[Answer], what: str) -> None:
    """Holds every token of the requests that were not cancelled against the reference."""
    tokens = 0
    for n, (asked, answer) in enumerate(zip(requests, answers, strict=True)):
        if answer.status == 0 and asked.cancel_after is not None:
            continue
        check(answer.status == 200, f"{what}: request {n} of {len(asked.prompt)} tokens got {answer}")
        check(len(answer.ids) == asked.tokens, f"{what}: request {n} got {len(answer.ids)} tokens")
        wrong = reference.first_wrong(asked.prompt, answer.ids)
        check(
            wrong is None,
            f"{what}: request {n} of {len(asked.prompt)} tokens is wrong at token {wrong and wrong[0]}, by a logit "
            f"of {wrong and wrong[1]}",
        )
        tokens += len(answer.ids)
    print(f"{what}: {tokens} tokens of {len(requests)} requests are transformers' own", flush=True)


def freed_early(server: Server) -> tuple[int, int, int]:
    """Of all requests that have ended: their pages, the pages freed while they ran, the most of one at a time."""
    found = [tuple(map(int, each)) for each in EARLY.findall(server.log.read_text())]
    return sum(each[0] for each in found), sum(each[2] for each in found), max((each[1] for each in found), default=0)


def check(right: bool, message: str) -> None:
    if not right:
        raise SystemExit(message)
