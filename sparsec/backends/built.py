"""What a backend tells of kernels that it has built into files.

Invariant: plain data, which a manifest holds as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LaunchArgument:
    """What a launch passes next: `count` numbers of a C `type`; uint64_t is the address of what `points_to`.

    `value`: a C expression of the quantities of a LaunchRecord; empty where what the call's inputs hold decides it.
    """

    name: str
    type: str
    value: str = ""
    points_to: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class LaunchDescriptor:
    """The tensor map that an argument is: of `tensor`, in boxes of these numbers of elements, its last dimension last.

    `swizzle` and `element` as `CUtensorMapSwizzle` and `CUtensorMapDataType` number them; what lies outside of the
    tensor is 0.
    """

    argument: str
    tensor: str
    box: tuple[int, ...]
    swizzle: int
    element: int


@dataclass(frozen=True, slots=True)
class LaunchRecord:
    """How machine code is launched without the compiler that built it: one-dimensional, `threads` a program.

    `programs` and the values of arguments are C expressions of these quantities: `batch`, `nq` and `nk`, the queries
    and keys of a sequence; `q0`, the position of the first query; `documents`; `slots` of a cache's sequence;
    `splits`, `listed` and `kept`, in how many parts few queries take the keys of tiles, those of lists, and kept
    ones; `entries`, which all lists of kept keys have room for; `columns`, of a list of columns the most entries;
    `longest`, the most tokens of a sequence after the call; `x_stride[3]`, the strides of tensor x over sequences,
    heads and rows in elements; `scale`, positive. Divisions are of integers and round down. `constants`: what the
    code was built for, such as rows that start at multiples of 16 bytes (VECTOR over 1). `tables`: int32, or float,
    what the addresses of their names point to.
    """

    file: str
    programs: str
    threads: int
    shared_bytes: int
    scratch_bytes: int
    arguments: tuple[LaunchArgument, ...]
    descriptors: tuple[LaunchDescriptor, ...]
    constants: Mapping[str, Any]
    tables: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """One built kernel. Registers per thread, bytes per thread or program; None where a target has no such figure.

    `problems` holds what makes it unfit: too much shared memory, no tensor-core instruction. `warnings` tell of spills.
    `launch`: None for a function of a library, which its header declares; `micro_kernel` then says what such a function
    multiplies, and how, if it does.
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
    launch: LaunchRecord | None = None
    micro_kernel: str | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """What a folder holds of kernels: their figures, and the content of each file by its name.

    `needs`: what they ask of the machine that runs them, as plain data; None for nothing.
    """

    kernels: tuple[KernelRecord, ...]
    files: Mapping[str, bytes]
    needs: Mapping[str, Any] | None = None
