"""The GPU that a step runs on: what it is, its state under load, and its device; or, for a rehearsal, a stand-in.

Invariant: no step asks torch.cuda for anything but through here and the clock, so that all of them run on a machine
without a GPU: with SPARSEC_REHEARSAL set, on CPU tensors and in Triton's interpreter, at sizes of a few rows.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch

from sparsec.backends.triton.kernel import target_of

REHEARSAL = bool(os.environ.get("SPARSEC_REHEARSAL"))
_QUERY = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")
_LOADED_SECONDS = 0.15
"""The driver's figures are means of its last tenth of a second or so."""


@dataclass(frozen=True, slots=True)
class Card:
    """`target`: as `plan.target` calls it. `l2_bytes`: of its last cache."""

    name: str
    target: str
    device: torch.device
    processors: int
    memory_bytes: int
    l2_bytes: int


def card() -> Card:
    """Raises RuntimeError where there is no GPU and no rehearsal."""
    if REHEARSAL:
        device = torch.device("cpu")
        return Card("rehearsal", target_of(device), device, 4, 1 << 30, 1 << 14)
    if not torch.cuda.is_available():
        raise RuntimeError("expected a GPU that torch sees, found none")
    device = torch.device("cuda", torch.cuda.current_device())
    found = torch.cuda.get_device_properties(device)
    cache = int(getattr(found, "L2_cache_size", 1 << 26))
    return Card(found.name, target_of(device), device, found.multi_processor_count, found.total_memory, cache)


def state() -> dict[str, float]:
    """MHz, watts and degrees, by `nvidia-smi`'s names; empty where it does not answer."""
    if REHEARSAL:
        return dict.fromkeys(_QUERY, 1.0)
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        ask = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits", "--id=0"]
        said = subprocess.run(ask, capture_output=True, text=True, timeout=5, check=True).stdout
        return dict(zip(_QUERY, map(float, said.strip().splitlines()[0].split(",")), strict=True))
    return {}


def state_under(run: Callable[[], object], seconds: float) -> dict[str, float]:
    """The state while `run`, which takes about `seconds` and does not wait, keeps the card busy."""
    for _ in range(max(1, round(2 * _LOADED_SECONDS / max(seconds, 1e-5)))):
        run()
    if not REHEARSAL:
        time.sleep(_LOADED_SECONDS)
    found = state()
    synchronize()
    return found


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def free() -> None:
    """Gives back what torch keeps for later tensors."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
