"""What a caller names as a device -> a device of this machine, and what a kernel keeps on each.

Invariant: a device holds data (`meta` does not); what is kept there is made outside of CUDA graph captures and is
whole before anybody has it, so that every stream and every graph may read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

import torch
from torch import Tensor

from sparsec.backends import registry
from sparsec.diagnostics.model import CallError

_T = TypeVar("_T")
_HERE = nullcontext()


def device_of(given: torch.device | str | int) -> torch.device:
    """Raises CallError for what this machine lacks."""
    try:
        found = torch.empty(0, device=given).device
    except (RuntimeError, AssertionError, TypeError):  # the second: torch was built without that kind
        found = None
    if found is None or found.type == "meta":
        raise CallError(f"expected a device of this machine, such as cpu or cuda:0, got {given!r:.80}")
    return found


def default_device(backend: str | None) -> torch.device:
    """The GPU, if there is one and the backend runs there, else the CPU."""
    on_gpu = torch.cuda.is_available() and (backend is None or registry.takes(backend, "cuda"))
    return torch.device("cuda" if on_gpu else "cpu")


def check_device(backend: str, device: torch.device) -> None:
    """Raises CallError unless the backend runs on the device."""
    only = registry.only_device(backend)
    if only is not None and device.type != only:
        raise CallError(
            f"expected a {'GPU' if only == 'cuda' else only.upper()} for target {backend!r}, got device {device}"
        )


def is_current(device: torch.device) -> bool:
    """Whether launches and questions about streams go there; the CPU is always current."""
    return device.type != "cuda" or torch.cuda.current_device() == device.index


def current(device: torch.device) -> AbstractContextManager[object]:
    """Within it, `device` is the current one."""
    return _HERE if is_current(device) else torch.cuda.device(device)


def captured(device: torch.device) -> bool:
    """Whether work for the device is being recorded into a CUDA graph, not done."""
    if device.type != "cuda":
        return False
    with current(device):
        return torch.cuda.is_current_stream_capturing()


def stream(device: torch.device) -> int:
    """The handle of the device's current stream; 0 on a CPU."""
    return int(torch.cuda.current_stream(device).cuda_stream) if device.type == "cuda" else 0


def device_tensor(rows: Sequence[object], device: torch.device, dtype: torch.dtype = torch.int32) -> Tensor:
    """Numbers of the host as a tensor. It waits for the copy; so it belongs into what `PerDevice` makes."""
    return torch.tensor(rows, dtype=dtype, device=device)


class PerDevice(Generic[_T]):
    """What `make` makes of a device, once, at the first use there; it lives as long as its owner."""

    def __init__(self, make: Callable[[torch.device], _T]) -> None:
        self.make = make
        self._made: dict[torch.device, _T] = {}

    def on(self, device: torch.device) -> _T:
        """Raises CallError where the first use is in a CUDA graph capture: no tensor made there outlives the graph."""
        found = self._made.get(device)
        if found is None:
            if captured(device):
                raise CallError(
                    f"expected a first call of this kind on {device} before one is captured in a CUDA graph, got none"
                )
            found = self._made.setdefault(device, self.make(device))
        return found
