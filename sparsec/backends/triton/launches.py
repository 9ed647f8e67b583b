"""A kernel on a device -> its launch, with those arguments that it names.

Invariant: what a kernel does not name it is not given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from triton.runtime.errors import OutOfResources

from sparsec.diagnostics.model import CallError
from sparsec.plan.target import LaunchShape
from sparsec.runtime.devices import current

FP_FUSION = True
"""Multiply and add become one instruction; passed to every compile, so that Triton's default does not matter."""


@dataclass(frozen=True, slots=True)
class KernelEntry:
    """A kernel on one device: what all its calls have in common. `fixed`: arguments that no call changes."""

    function: Any
    device: torch.device
    shape: LaunchShape
    fixed: Mapping[str, object]


def launch(entry: KernelEntry, programs: int, given: Mapping[str, object]) -> None:
    """Runs `programs` programs on the entry's device, with those arguments that the kernel names.

    Raises CallError where the device has too little room for the tiles that the kernel was planned with.
    """
    if not programs:
        return
    function, shape, fixed = entry.function, entry.shape, entry.fixed
    named = {name: given[name] if name in given else fixed[name] for name in function.arg_names}
    options: dict[str, object] = {"num_warps": shape.warps, "num_stages": shape.stages, "enable_fp_fusion": FP_FUSION}
    if shape.maxnreg is not None:
        options["maxnreg"] = shape.maxnreg
    try:
        with current(entry.device):  # Triton launches on the current device
            function[(programs,)](**named, **options)
    except OutOfResources as error:
        raise CallError(
            f"expected a device like the one that the module was compiled for, got {entry.device}, where its kernels "
            f"lack room ({error}); sparsec.compile(..., device={str(entry.device)!r}) makes one for it"
        ) from error
