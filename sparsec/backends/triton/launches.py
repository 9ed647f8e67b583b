"""A kernel on a device -> its launch, with those arguments that it names.

Invariant: what a kernel does not name it is not given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from triton.runtime.errors import OutOfResources

from sparsec.backends.triton.assembler import assembling
from sparsec.diagnostics.model import CallError
from sparsec.plan.target import LaunchShape
from sparsec.runtime.devices import current

VECTOR_BYTES = 16
"""Addresses and strides that are multiples of it are what kernels are compiled for, and what TMA takes."""
FP_FUSION = True
"""Multiply and add become one instruction; passed to every compile, so that Triton's default does not matter."""


@dataclass(frozen=True, slots=True)
class KernelEntry:
    """A kernel on one device: what all its calls have in common. `fixed`: arguments that no call changes."""

    function: Any
    device: torch.device
    shape: LaunchShape
    fixed: Mapping[str, object]


Again = Callable[[int | None, bool, Sequence[object]], object]
"""A launch by the handle of a stream, whether Triton's hooks are to be called, and its arguments in order."""


@dataclass(frozen=True, slots=True)
class Launched:
    """A launch that was made, and `again` as often as one likes. `fixed`: the places of arguments that no call changes.
    `by_address`: whether an address may stand for a tensor."""

    again: Again
    arguments: tuple[object, ...]
    fixed: frozenset[int]
    by_address: bool


@dataclass(frozen=True, slots=True)
class Derived:
    """Tensors that were made of others between two launches, and what makes them again."""

    make: Callable[..., Made]
    tensors: tuple[Tensor, ...]
    results: tuple[Tensor, ...]


Made = Tensor | tuple[Tensor, ...]
Recorded = list[Launched | Derived]
"""What a call did, in order."""


def derived(recorded: Recorded | None, make: Callable[..., Made], *tensors: Tensor) -> tuple[Tensor, ...]:
    """What `make` makes of the tensors, of their layouts alone but for what they hold; `recorded` gets it."""
    results = as_tuple(make(*tensors))
    if recorded is not None:
        recorded.append(Derived(make, tensors, results))
    return results


def as_tuple(made: Made) -> tuple[Tensor, ...]:
    return made if isinstance(made, tuple) else (made,)


def launch(entry: KernelEntry, programs: int, given: Mapping[str, object], recorded: Recorded | None = None) -> None:
    """Runs `programs` programs on the entry's device, with those arguments that the kernel names; `recorded` gets it.

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
        with current(entry.device), assembling():  # Triton launches on the current device
            built = function[(programs,)](**named, **options)
    except OutOfResources as error:
        raise lack_of_room(entry.device, error) from error
    if recorded is not None:
        unchanged = frozenset(place for place, name in enumerate(named) if name not in given)
        again = _interpreted(function, programs, tuple(named), options) if built is None else _compiled(built, programs)
        recorded.append(Launched(again, tuple(named.values()), unchanged, built is not None))


def lack_of_room(device: torch.device, error: OutOfResources) -> CallError:
    return CallError(
        f"expected a device like the one that the module was compiled for, got {device}, where its kernels "
        f"lack room ({error}); sparsec.compile(..., device={str(device)!r}) makes one for it"
    )


def _compiled(built: Any, programs: int) -> Again:
    """Of a compiled kernel: what Triton does with it for a launch, but for looking it up."""
    hooked_run, run, function, packed = built[(programs, 1, 1)], built.run, built.function, built.packed_metadata

    def again(stream: int | None, hooked: bool, arguments: Sequence[object]) -> None:
        if hooked:
            hooked_run(*arguments, stream=stream)
        else:
            run(programs, 1, 1, stream, function, packed, None, None, None, *arguments)

    return again


def _interpreted(function: Any, programs: int, names: tuple[str, ...], options: Mapping[str, object]) -> Again:
    def again(stream: int | None, hooked: bool, arguments: Sequence[object]) -> None:
        function[(programs,)](**dict(zip(names, arguments, strict=True)), **options)

    return again


def hooked() -> bool:
    """Whether somebody wants to be told of launches, such as Triton's profiler."""
    knobs = triton.knobs.runtime
    before, after = knobs.launch_enter_hook, knobs.launch_exit_hook
    return bool(getattr(before, "calls", before) or getattr(after, "calls", after))


def processors_of(device: torch.device) -> int:
    """Multiprocessors."""
    return 1 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count
