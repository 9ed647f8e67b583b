"""Settings -> what the calls touched that is not theirs, by guard pages or by the compiler's sanitizers.

Invariant: this process runs no kernel; each function starts one process that does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
EXAMPLES, MORE = HERE.parents[1] / "examples", HERE / "more.sparse"
KERNELS = ("forward", "backward", "mass", "chunk", "rows", "store")


@dataclass(frozen=True, slots=True)
class Settings:
    """Which calls to make: `target` is "cpu" or "triton", `sides` are those of `guarded.placed`.

    Each pattern has `variants` pairs of head dimension and dtype, and each kernel `lengths` of those there are, in
    turn. `patterns`: these alone. `optimise`: the compiler's -O. `kv_dtype`: what caches on the CPU store, if not what
    calls give.
    """

    target: str
    sides: tuple[str, ...]
    variants: int = 1
    lengths: int = 99
    optimise: int = 0
    patterns: tuple[str, ...] = ()
    kernels: tuple[str, ...] = KERNELS
    kv_dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """The calls to make, and by name a mistake of `plants` that the kernels' text shall have."""

    settings: Settings
    plant: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """`kernels`: (pattern, kernel); `findings`: the call, and what its process said."""

    kernels: tuple[tuple[str, str], ...]
    calls: int
    findings: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"{len(self.kernels)} kernels, {self.calls} calls", *self.findings))


def find(jobs: Sequence[Job], environment: Mapping[str, str] | None = None) -> list[Report]:
    """One report a job; the jobs must be of one target."""
    paths = [str(path) for path in (HERE.parents[1], HERE.parent / "numerics")]
    own = {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]), "OMP_WAIT_POLICY": "passive"}
    if jobs[0].settings.target == "triton":
        own |= {"TRITON_INTERPRET": "1", "PYTHONFAULTHANDLER": "1"}  # which shows the kernel's line
    done = subprocess.run(
        [sys.executable, str(HERE / "worker.py")],
        input=json.dumps([asdict(job) for job in jobs]),
        env={**os.environ, **own, **(environment or {})},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-6000:]}")
    found = map(json.loads, done.stdout.splitlines())
    return [Report(tuple(map(tuple, r["kernels"])), r["calls"], tuple(r["findings"])) for r in found]


def sanitizers() -> dict[str, str] | None:
    """The environment of a process whose kernels g++ builds with AddressSanitizer and UndefinedBehaviorSanitizer.

    None where g++ has none.
    """
    try:
        asked = ["g++", "-print-file-name=libasan.so"]
        library = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    if not Path(library).is_absolute():
        return None
    return {
        "CXX": "g++ -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1",
        "LD_PRELOAD": str(Path(library).resolve()),  # in the process before Python's own first allocation
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
