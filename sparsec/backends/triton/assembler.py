"""Which of the assemblers that Triton brings makes machine code for NVIDIA's GPUs.

ptxas 12.8, which Triton 3.6 and 3.7 take for compute capability 9.0, has an error: where a tile in shared memory has
the place of the tile before it, a loop's first pass may read it at an address that is left from other code. Both bring
a later one for later GPUs, as Triton 3.9 takes for both. Invariant: nothing is built by a release before SOUND.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from threading import RLock

import triton

SOUND = (12, 9)
_BUILDING = RLock()
"""Triton's settings are those of a process."""


def assembling() -> AbstractContextManager[None]:
    """While it lasts, Triton builds with an assembler of release SOUND or later."""
    return nullcontext() if triton.knobs.runtime.interpret or not _too_old() else _by_another()


@cache
def _too_old() -> bool:
    return _release(triton.knobs.nvidia.ptxas.version) < SOUND


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@cache
def _other() -> str:
    return str(triton.knobs.nvidia.ptxas_blackwell.path)


@contextmanager
def _by_another() -> Iterator[None]:
    """Triton's own `scope` takes 30 us, at every launch, for it keeps all settings."""
    settings = vars(triton.knobs.nvidia)
    with _BUILDING:
        before = settings.get("ptxas")
        settings["ptxas"] = _other()
        try:
            yield
        finally:
            del settings["ptxas"]
            if before is not None:
                settings["ptxas"] = before
