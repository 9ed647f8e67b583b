"""Triton launches that do nothing, on tensors of the CPU: what is left of a call is the host's part.

Invariant: of Triton, all runs but its compiler and, of a launch, the driver: what reads the arguments from Python and
hands them to the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import triton
import triton.compiler
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime import driver

TARGET = GPUTarget("cuda", 90, 32)
"""What the kernels are specialised for."""


class StubKernel:
    """Stands for a compiled kernel; `launched` gets the name of its function at each launch."""

    def __init__(self, source: Any, launched: list[str]) -> None:
        self.src, self.name, self.launched = source, source.name, launched
        self.function, self.metadata, self.packed_metadata = 0, None, None

    __getitem__ = CompiledKernel.__getitem__
    launch_metadata = CompiledKernel.launch_metadata

    def _init_handles(self) -> None:
        """There is nothing to load."""

    def run(self, *arguments: object) -> None:
        self.launched.append(self.name)


class _Driver:
    """Takes tensors of the CPU for those of a GPU."""

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def stub_launches() -> Iterator[list[str]]:
    """Within it Triton compiles nothing and launches nothing; yields the names of the kernels launched, in order.

    What has been called within it is of no use after it.
    """
    if triton.knobs.runtime.interpret:
        raise RuntimeError("expected a process without TRITON_INTERPRET, got one with it: it would run the kernels")
    launched: list[str] = []

    def compiled(source: Any, **_: object) -> StubKernel:
        return StubKernel(source, launched)

    before = driver._active
    driver.set_active(_Driver())
    try:
        with patch.object(triton.compiler, "compile", compiled):
            yield launched
    finally:
        driver._active = before
