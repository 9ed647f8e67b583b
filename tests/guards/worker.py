"""Jobs, as JSON on stdin -> what their calls touched that is not theirs, as JSON on stdout; see `findings`.

Invariant: calls are made in children of this process, so that one that kills its process is one finding, and the calls
after it are made all the same.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from typing import Any

from calls import calls
from findings import Settings
from plants import planted

MOST = 10
"""Findings after which nobody reads on."""


def job(asked: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in asked["settings"].items()}
    settings = Settings(**given)
    kernels: set[tuple[str, str]] = set()
    findings: list[str] = []
    first = made = 0
    while len(findings) < MOST:
        named, status, said = _child(settings, asked["plant"], first)
        made += len(named)
        kernels |= {(pattern, kernel) for _, pattern, kernel, _ in named}
        if status == 0:
            break
        if not named:
            raise RuntimeError(f"no call was made: {said}")
        number, _, _, call = named[-1]
        findings.append(f"{call}: exit status {status}\n{said}")
        first = number + 1
    return {"kernels": sorted(kernels), "calls": made, "findings": findings}


def _child(settings: Settings, plant: str, first: int) -> tuple[list[Any], int, str]:
    """The calls from the `first` on that were begun, the exit status (-signal), and the start of what was said."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            status = 1
            try:
                with planted(plant):
                    _make(settings, first, writing)
                status = 0
            except BaseException:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(status)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as lines:
            named = [json.loads(line) for line in lines]
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return named, status, said.read().decode(errors="replace")[:6000]


def _make(settings: Settings, first: int, names: int) -> None:
    for number, call in enumerate(calls(settings)):
        if number >= first:
            os.write(names, (json.dumps([number, call.of.name, call.kernel, str(call)]) + "\n").encode())
            call.run()


if __name__ == "__main__":
    os.environ.pop("LD_PRELOAD", None)  # this process has the sanitizer's library, and the compiler needs none
    for each in json.load(sys.stdin):
        print(json.dumps(job(each)), flush=True)
