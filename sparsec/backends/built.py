"""What a backend tells of kernels that it has built into files.

Invariant: plain data, which a manifest holds as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """One built kernel. Registers per thread, bytes per thread or program; None where a target has no such figure.

    `problems` holds what makes it unfit: too much shared memory, no tensor-core instruction. `warnings` tell of spills.
    """

    name: str
    registers: int | None = None
    spills: int | None = None
    stack_bytes: int | None = None
    shared_bytes: int | None = None
    tensor_core_instructions: int | None = None
    tma_instructions: int | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Built:
    """What a folder holds of kernels: their figures, and the content of each file by its name.

    `needs`: what they ask of the machine that runs them, as plain data; None for nothing.
    """

    kernels: tuple[KernelRecord, ...]
    files: Mapping[str, bytes]
    needs: Mapping[str, Any] | None = None
