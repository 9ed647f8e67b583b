"""The backends by name, each imported when it is first asked for; and what is known of each before that.

A backend is a way to run attention (`cpu`, `triton`); a target is a machine to compile for (`cpu:x86-64-v3`,
`cuda:90`), and belongs to one backend. Invariant: this imports no backend, and neither torch nor Triton.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from sparsec.backends.base import Backend, Builder, Oracle
from sparsec.plan.target import CPU_TARGETS, GPU_TARGETS


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a backend is: `module` has it as `BACKEND`.

    targets: what its target names begin with. devices: the kinds of device that it runs on, as torch calls them (None:
    any). builds: the targets that `sparsec compile` takes; then it is a Builder. ahead: whether a compiler builds its
    kernels before they are first called. float64: whether it computes in it. oracle: whether it is an Oracle.
    """

    module: str
    targets: tuple[str, ...]
    devices: tuple[str, ...] | None = None
    builds: tuple[str, ...] = ()
    ahead: bool = False
    float64: bool = False
    oracle: bool = False


BACKENDS = {
    "cpu": Entry("sparsec.backends.cpu.backend", ("cpu",), ("cpu",), CPU_TARGETS, ahead=True),
    "triton": Entry("sparsec.backends.triton.backend", ("cuda", "hip", "interpreter"), ("cuda", "cpu"), GPU_TARGETS),
    "torch": Entry("sparsec.backends.torch.backend", ("torch",), float64=True),
    "reference": Entry("sparsec.backends.reference.backend", (), float64=True, oracle=True),
}
"""Best first: a device gets the first one that runs there, and, where that cannot be built, the next."""


def backend(name: str) -> Backend:
    return cast(Backend, _imported(name))


def builder(target: str) -> Builder:
    """The backend of a target that `sparsec compile` takes. Raises ValueError for another one."""
    name = backend_name(target)
    if target not in BACKENDS[name].builds:
        known = (each for entry in BACKENDS.values() for each in entry.builds)
        raise ValueError(f"expected a target among {', '.join(known)}, got {target!r}")
    return cast(Builder, _imported(name))


def oracle(name: str) -> Oracle:
    return cast(Oracle, _imported(name))


def _imported(name: str) -> Any:
    return import_module(BACKENDS[name].module).BACKEND


def backend_name(target: str) -> str:
    """The name of the backend that a target belongs to. Raises ValueError for a target of another form."""
    kind = target.partition(":")[0]
    for name, entry in BACKENDS.items():
        if kind in entry.targets:
            return name
    raise ValueError(f"expected a target such as cpu, cuda:90 or hip:gfx942, got {target!r}")


def compared() -> tuple[str, ...]:
    """The names of those that are held to an oracle."""
    return tuple(name for name, entry in BACKENDS.items() if not entry.oracle)


def best(device: str, *, after: str | None = None) -> str | None:
    """The best backend for a kind of device, or the next best one `after` another; None if there is none."""
    names = compared() if after is None else compared()[compared().index(after) + 1 :]
    return next((name for name in names if runs_on(name, device)), None)


def runs_on(name: str, device: str) -> bool:
    """Whether a backend runs on a kind of device."""
    devices = BACKENDS[name].devices
    return devices is None or device in devices


def only_device(name: str) -> str | None:
    """The one kind of device that a backend runs on; None where it runs on several."""
    devices = BACKENDS[name].devices
    return devices[0] if devices is not None and len(devices) == 1 else None
