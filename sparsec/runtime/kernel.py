"""Kernels that are loaded in this process, and the table through which the custom operators find them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from sparsec.backends.absent import no_kept, no_mass
from sparsec.backends.base import (
    BackwardKernel,
    CachedKernel,
    ForwardKernel,
    Kernels,
    Lookup,
    MassKernel,
)
from sparsec.backends.paged import PagedKernel
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.launch import LaunchPlan
from sparsec.runtime.draws import DrawTables
from sparsec.runtime.inputs.prepare import CallShape, by_input, key_bias_of, lists_in_place, prepared
from sparsec.runtime.kv.stored import dtype_name
from sparsec.runtime.request import DIGEST_LENGTH


@dataclass(frozen=True)
class LoadedKernel:
    """The kernels of a compilation, each made once, and what a call of the forward one takes."""

    kernels: Kernels
    launch: LaunchPlan
    make_plan: Callable[[], KernelPlan]
    _stored: dict[tuple[str, bool], CachedKernel] = field(default_factory=dict)

    @cached_property
    def forward(self) -> ForwardKernel:
        return self.kernels.forward

    @property
    def source(self) -> str:
        """The generated text of the forward kernel, empty without one."""
        return str(getattr(self.forward, "source", ""))

    @cached_property
    def draws(self) -> DrawTables:
        """The draw tables that the kernels take, class by class."""
        return DrawTables(self.launch.lists)

    def lookups(self, inputs: Sequence[Tensor], n_queries: int, n_keys: int, q_offset: int) -> tuple[Lookup, ...]:
        """What the kernels look up in the tensors of a call's inputs, which are those of all inputs in order."""
        return lookups(self.launch, inputs, CallShape(n_queries, n_keys, q_offset))

    def key_bias(self, inputs: Sequence[Tensor]) -> Tensor | None:
        """What keys add to their scores, of those tensors; None where the pattern has it not."""
        return key_bias_of(self.bias, self.launch.declared, inputs)

    @cached_property
    def bias(self) -> int | None:
        """As of `sema.model.Score`."""
        return self.launch.score.bias

    @cached_property
    def plan(self) -> KernelPlan:
        return self.make_plan()

    @cached_property
    def backward(self) -> BackwardKernel:
        return self.kernels.make_backward()

    @cached_property
    def cached(self) -> CachedKernel:
        return self.kernels.make_cached()

    @property
    def keeps(self) -> bool:
        """Whether there are kernels over a cache that has marked keys in lists."""
        return self.kernels.make_kept is not no_kept

    @cached_property
    def kept(self) -> CachedKernel:
        """The kernels over a cache that has marked keys in lists. Raises CallError where there are none."""
        return self.kernels.make_kept()

    def over_cache(self, dtype: torch.dtype, kv_dtype: torch.dtype, *, lists: bool) -> CachedKernel:
        """The kernels for calls of `dtype` over a cache that stores `kv_dtype`, with or without lists of marked keys.

        Raises CallError where there are none.
        """
        if kv_dtype == dtype:
            return self.kept if lists else self.cached
        key = dtype_name(kv_dtype), lists
        if key not in self._stored:
            self._stored[key] = self.kernels.make_stored(*key)
        return self._stored[key]

    @cached_property
    def paged(self) -> PagedKernel:
        """Raises CallError where there is none."""
        return self.kernels.make_paged()

    @cached_property
    def paged_draws(self) -> DrawTables:
        """The draw tables of `paged`."""
        return DrawTables(self.paged.plan.chunks.lists)

    @property
    def weighs(self) -> bool:
        """Whether there are kernels that give a mass without a cache."""
        return self.kernels.make_mass is not no_mass

    @cached_property
    def mass(self) -> MassKernel:
        return self.kernels.make_mass()


def lookups(launch: LaunchPlan, inputs: Sequence[Tensor], call: CallShape) -> tuple[Lookup, ...]:
    """What kernels of a launch plan look up in the tensors of all inputs in order."""
    if not launch.of_inputs:
        return ()
    if launch.takes_lists_alone and len(inputs) == len(launch.declared):  # a step of decoding would feel the rest
        return tuple([lists_in_place(test, inputs[test.ordinal]) for test in launch.of_inputs])
    given = by_input(launch.declared, inputs, Tensor.dim)
    return prepared(launch.of_inputs, given, call, launch.ordered)


_KERNELS: dict[str, LoadedKernel] = {}
# The one piece of process-wide state: operators take only tensors and plain values, so a graph names its kernel by what
# it is made from (`runtime.request`). The keys are the names' digests, which a step of decoding finds sooner. An entry
# never changes, for equal digests mean equal kernels.


def register(name: str, kernel: LoadedKernel) -> str:
    """Makes `kernel` known under `name` for the life of the process; returns the name."""
    _KERNELS.setdefault(name[:DIGEST_LENGTH], kernel)
    return name


def registered(name: str, device: torch.device | None = None) -> LoadedKernel:
    """The kernel of a name, built now for tensors of `device` where this process has not seen it: it came from another.

    Raises CallError for a string that is no name, and as `sparsec.compile` does.
    """
    found = _KERNELS.get(name[:DIGEST_LENGTH])
    if found is None:
        from sparsec.runtime.compile import rebuilt  # which imports this module

        found = _KERNELS.setdefault(name[:DIGEST_LENGTH], rebuilt(name, device))
    return found
