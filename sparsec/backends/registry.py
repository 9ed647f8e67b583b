"""The backends by name, each imported when it is first asked for; and what is known of each before that.

A backend is a way to run attention (`cpu`, `triton`); a target is a machine to compile for (`cpu:x86-64-v3`,
`cuda:90`), and belongs to one backend. Invariant: this imports no backend, and neither torch nor Triton.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from sparsec.backends.base import Backend, Builder, Oracle
from sparsec.plan.target import CPU_TARGETS, GLUON, GPU_TARGETS


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a backend is: `module` has it as `BACKEND`.

    targets: what its target names begin with. devices: the kinds of device that it runs on, as torch calls them (None:
    any); if_named: others, where it is asked for. builds: the targets that `sparsec compile` takes; then it is a
    Builder. ahead: whether a compiler builds its kernels before they are first called. float64: whether it computes in
    it. oracle: whether it is an Oracle. tiles: whether its tiles may be chosen. dtype: where a command is given none.
    """

    module: str
    targets: tuple[str, ...]
    devices: tuple[str, ...] | None = None
    if_named: tuple[str, ...] = ()
    builds: tuple[str, ...] = ()
    ahead: bool = False
    float64: bool = False
    oracle: bool = False
    tiles: bool = False
    dtype: str = "float32"


BACKENDS: Mapping[str, Entry] = {
    "cpu": Entry("sparsec.backends.cpu.backend", ("cpu",), ("cpu",), builds=CPU_TARGETS, ahead=True),
    "triton": Entry(
        "sparsec.backends.triton.backend",
        ("cuda", "hip", "interpreter"),
        ("cuda",),
        if_named=("cpu",),
        builds=GPU_TARGETS,
        tiles=True,
    ),
    "gluon": Entry(
        "sparsec.backends.gluon.backend", ("gluon",), (), if_named=("cuda",), builds=(GLUON,), dtype="bfloat16"
    ),
    "torch": Entry("sparsec.backends.torch.backend", ("torch",), float64=True),
    "reference": Entry("sparsec.backends.reference.backend", (), float64=True, oracle=True),
}
"""Best first: a device gets the first one that runs there, and, where that cannot be built, the next."""


def backend(name: str) -> Backend:
    return cast(Backend, _imported(name))


def builder(target: str) -> Builder:
    """The backend of a target that `sparsec compile` takes; raises as `check_target` does."""
    check_target(target)
    return cast(Builder, _imported(backend_name(target)))


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


def check_target(target: str) -> None:
    """Raises ValueError for a target that `sparsec compile` does not take."""
    if target not in BACKENDS[backend_name(target)].builds:
        known = (each for entry in BACKENDS.values() for each in entry.builds)
        raise ValueError(f"expected a target among {', '.join(known)}, got {target!r}")


def compared() -> tuple[str, ...]:
    """The names of those that are held to an oracle."""
    return tuple(name for name, entry in BACKENDS.items() if not entry.oracle)


def best(device: str, *, after: str | None = None) -> str | None:
    """The best backend for a kind of device, or the next best one `after` another; None if there is none."""
    names = compared() if after is None else compared()[compared().index(after) + 1 :]
    return next((name for name in names if runs_on(name, device)), None)


def runs_on(name: str, device: str) -> bool:
    """Whether a backend runs on a kind of device without being asked to."""
    devices = BACKENDS[name].devices
    return devices is None or device in devices


def takes(name: str, device: str) -> bool:
    """Whether a backend runs on a kind of device where it is asked to."""
    return runs_on(name, device) or device in BACKENDS[name].if_named


def only_device(name: str) -> str | None:
    """The one kind of device that a backend runs on; None where it runs on several."""
    entry = BACKENDS[name]
    kinds = () if entry.devices is None else entry.devices + entry.if_named
    return kinds[0] if len(kinds) == 1 else None
