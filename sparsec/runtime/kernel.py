"""What every target's kernel offers, and the table through which the custom operators find one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from sparsec.plan.kernel import KernelPlan
from sparsec.plan.launch import LaunchPlan
from sparsec.runtime.cached_kernel import CachedKernel
from sparsec.runtime.draws import DrawTables
from sparsec.runtime.request import DIGEST_LENGTH


class ForwardKernel(Protocol):
    """Attention on tensors that `runtime.module` has checked.

    q [B, H, Nq, D], k and v [B, G, Nk, D], any strides; row r of q sits at absolute position q_offset + r. `scale` None
    means the pattern's, else 1/sqrt(D). `lists` are the draw tables of `runtime.draws`. `sink` is float32 [H] where the
    pattern has a learned sink; `cu_seqlens` int32 [documents + 1] where it has documents (then B is 1 and Nq is Nk).
    """

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        lists: tuple[Tensor, ...],
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """out like q, 0 in rows that see no key; natural-log LSE [B, H, Nq], -inf there (the sink, if there is one).

        Both are contiguous. The LSE is float32, or float64 for float64 inputs.
        """
        ...


class BackwardKernel(Protocol):
    """The gradients of the attention that a ForwardKernel of the same pattern computed."""

    def backward(
        self,
        grad_out: Tensor,
        grad_lse: Tensor | None,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        lists: tuple[Tensor, ...],
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Gradients of q, k and v, contiguous and like them, and of the sink (None without one)."""
        ...


@dataclass(frozen=True)
class LoadedKernel:
    """A pattern's kernels, and what a call of the forward one takes.

    The backward kernels, those of a cache and the plan of what was compiled are made when first needed.
    """

    forward: ForwardKernel
    make_backward: Callable[[], BackwardKernel]
    launch: LaunchPlan
    make_cached: Callable[[], CachedKernel]
    make_plan: Callable[[], KernelPlan]

    @property
    def source(self) -> str:
        """The generated text of the forward kernel, empty without one."""
        return str(getattr(self.forward, "source", ""))

    @cached_property
    def draws(self) -> DrawTables:
        """The draw tables that the kernels take, class by class."""
        return DrawTables(self.launch.lists)

    @cached_property
    def plan(self) -> KernelPlan:
        return self.make_plan()

    @cached_property
    def backward(self) -> BackwardKernel:
        return self.make_backward()

    @cached_property
    def cached(self) -> CachedKernel:
        return self.make_cached()


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
