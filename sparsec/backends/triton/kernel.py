"""Generated Triton source -> launched kernels, on a GPU or, on CPU tensors, in Triton's interpreter.

Invariant: a new length, batch size or offset compiles nothing; two runs on the same inputs give the same bits.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.backends.triton.call import (
    ClassEntry,
    LaunchCall,
    aligned_tensor,
    as_dtype,
    row_sums,
    with_rows,
)
from sparsec.backends.triton.emit import emit_triton, emit_triton_backward
from sparsec.backends.triton.launches import KernelEntry
from sparsec.backends.triton.modifiers import modifiers_of
from sparsec.backends.triton.modules import load_module
from sparsec.backends.triton.replays import Fill, Replays, given_to
from sparsec.diagnostics.model import CallError, InternalError
from sparsec.plan.kernel import BackwardPlan, KernelPlan
from sparsec.plan.launch import BackwardLaunch, LaunchClass, LaunchPlan
from sparsec.plan.target import PLAIN, LaunchShape, family
from sparsec.runtime.devices import PerDevice, device_tensor
from sparsec.runtime.draws import DrawTables

LOG2_E = math.log2(math.e)


def interpreted() -> bool:
    """Whether this process runs Triton's kernels in the interpreter (TRITON_INTERPRET=1 when it was imported)."""
    return bool(triton.knobs.runtime.interpret)


def target_of(device: torch.device) -> str:
    """The target name of a device: `cuda:90`, `hip:gfx942`, or `interpreter` for the CPU.

    Raises CallError for a GPU that no tiles are known for.
    """
    if device.type == "cpu":
        return "interpreter" if interpreted() else _target_of_driver() or "interpreter"
    properties = torch.cuda.get_device_properties(device)
    found = f"cuda:{properties.major}{properties.minor}"
    if torch.version.hip:
        found = f"hip:{properties.gcnArchName.split(':')[0]}"
    try:
        family(found)
    except ValueError as error:
        raise CallError(f"expected a GPU of compute capability 8.0 or later, got {device}, a {found}") from error
    return found


@dataclass(frozen=True, slots=True)
class GradientEntries:
    """The gradients' kernels on one device, and those of the mass."""

    row_sums: KernelEntry
    queries: tuple[ClassEntry, ...]
    keys: tuple[ClassEntry, ...]
    mass: tuple[ClassEntry, ...]


@dataclass(frozen=True, slots=True)
class Gradients:
    """The gradients' launch plan, their source, the kernels on each device, and the tables that key tiles read."""

    plan: BackwardLaunch
    source: str
    entries: PerDevice[GradientEntries]
    draws: DrawTables
    replays: Replays = field(default_factory=Replays)

    @classmethod
    def of(cls, plan: BackwardLaunch, source: str, allow_tf32: bool) -> Gradients:
        made = PerDevice(lambda device: _gradient_entries(plan, source, allow_tf32, device))
        return cls(plan, source, made, DrawTables(plan.lists))


def _gradient_entries(plan: BackwardLaunch, source: str, allow_tf32: bool, device: torch.device) -> GradientEntries:
    check_runs_triton(device)
    module, fixed = load_module(source), constants(plan.forward, allow_tf32, device)
    target = target_of(device)

    def entries(name: str, classes: tuple[LaunchClass, ...]) -> Iterator[ClassEntry]:
        tests = [g for g, test in enumerate(plan.forward.inputs) if test in plan.forward.columns]
        for n, launched in enumerate(classes):
            shape = plan.shape(launched, target, of_keys=name != "grad_queries")

            def entry(kernel: str, of: LaunchClass, shape: LaunchShape = shape) -> ClassEntry:
                on = module, kernel, device, target, shape
                return ClassEntry.of(*on, plan.forward, of, fixed, of_groups=name == "grad_keys")

            lists = ((g, f"gather_{name}_{n}_{g}") for g in tests)
            columns = tuple((g, entry(kernel, launched.of_list)) for g, kernel in lists if hasattr(module, kernel))
            yield replace(entry(f"{name}_{n}", launched), columns=columns)

    return GradientEntries(
        KernelEntry(module.row_sums, device, PLAIN, {}),
        tuple(entries("grad_queries", plan.forward.classes)),
        tuple(entries("grad_keys", plan.transposed)),
        tuple(entries("key_mass", plan.transposed)),
    )


@dataclass(frozen=True, slots=True)
class TritonKernel:
    """The kernels of one plan. `allow_tf32` lets float32 inputs be multiplied with TF32 tensor cores.

    `gradients` makes the backward kernels when the first gradient is asked for; without it there is no backward.
    """

    plan: LaunchPlan
    source: str
    allow_tf32: bool = False
    gradients: Callable[[], Gradients] | None = None
    entries: PerDevice[tuple[ClassEntry, ...]] = field(init=False, repr=False, compare=False)
    replays: Replays = field(default_factory=Replays, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", PerDevice(self._entries_on))

    @classmethod
    def of(
        cls, plan: KernelPlan, *, allow_tf32: bool = False, plan_backward: Callable[[], BackwardPlan] | None = None
    ) -> TritonKernel:
        """`plan_backward` gives the plan of the gradients, of tiles of `plan.target.backward_tile_sizes`."""

        @cache
        def gradients() -> Gradients:
            assert plan_backward is not None
            made = plan_backward()
            return Gradients.of(BackwardLaunch.of(made), emit_triton_backward(made), allow_tf32)

        return cls(LaunchPlan.of(plan), emit_triton(plan), allow_tf32, None if plan_backward is None else gradients)

    @classmethod
    def load(cls, plan: LaunchPlan, source: str, gradients: tuple[BackwardLaunch, str] | None) -> TritonKernel:
        """The kernels of `source`, which `emit_triton` made, and of the gradients' plan and source, where given."""
        made = None if gradients is None else Gradients.of(*gradients, allow_tf32=False)
        return cls(plan, source, gradients=None if made is None else lambda: made)

    def _entries_on(self, device: torch.device) -> tuple[ClassEntry, ...]:
        check_runs_triton(device)
        plan, target = self.plan, target_of(device)
        module, fixed = load_module(self.source), constants(plan, self.allow_tf32, device)
        made = []
        for n, launched in enumerate(plan.classes):
            shape = plan.shape(launched, target)
            made.append(ClassEntry.of(module, f"forward_{n}", device, target, shape, plan, launched, fixed))
        return tuple(made)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int,
        scale: float | None = None,
        lists: Sequence[Tensor] = (),
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `backends.base.ForwardKernel`; `lists` are the tables of `runtime.draws`, class by class.

        Raises CallError for tensors on the CPU outside the interpreter.
        """
        given, key = given_to((q, k, v, *lists), (sink, cu_seqlens, key_bias), inputs, q_offset, scale)
        if (made := self.replays.run(key, given)) is not None:
            return as_dtype(made[0], q.dtype), made[1]
        recorded = self.replays.recorder(key, q.device)
        scale, packed = self.plan.scale(scale), cu_seqlens is not None
        entries = self.entries.on(q.device)
        # What tiles give and what lists give meet in it, so it is rounded once, at the end.
        out = new_like(q, zero=packed, wide=any(each.gathers for each in entries), columns=v.shape[3])
        lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
        if packed:  # a row may be in no document
            lse.fill_(-math.inf)
        if q.numel() == 0:
            return out.to(q.dtype), lse
        q, scale = with_positive_scale(q, scale)
        q, k, v = (with_rows(tensor) for tensor in (q, k, v))
        strided = {"q": q, "k": k, "v": v, "out": out}
        scale_log2 = scale * LOG2_E
        call = LaunchCall.of(self.plan, strided, q_offset, cu_seqlens, scale_log2, inputs, key_bias, recorded)
        tensors = {**strided, "lse": lse, "sink": None if sink is None else aligned_tensor(sink)}
        for entry, tables in zip(entries, with_lists(self.plan.classes, lists), strict=True):
            call.query_tiles(entry, tables, tensors, {"keys": k, "values": v})
        if recorded is not None:
            fills = (0.0, -math.inf) if packed else (None, None)
            self.replays.keep(key, recorded, given, tuple(zip((out, lse), fills, strict=True)))
        return out.to(q.dtype), lse

    def build(self) -> None:
        """Kernels are built at their first launch."""

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
        scale: float | None = None,
        lists: Sequence[Tensor] = (),
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
        of_bias: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """See `backends.base.BackwardKernel`; raises as `forward` does."""
        made = self._gradients()
        of_keys = made.draws.tables(q.shape[2], q_offset, q.device)
        g = with_rows(grad_out)
        beside = grad_lse, sink, cu_seqlens, key_bias
        given, key = given_to((q, k, v, g, out, lse, *lists, *of_keys), beside, inputs, q_offset, scale, of_bias)
        if (found := made.replays.run(key, given)) is not None:
            return _gradients_of(found, q, k, v, of_bias)
        recorded = made.replays.recorder(key, q.device)
        plan, packed, entries = made.plan, cu_seqlens is not None, made.entries.on(q.device)
        gathers = any(entry.gathers for entry in entries.queries)
        adds = plan.adds_up or any(entry.gathers for entry in entries.keys)
        dq = new_like(q, zero=packed or gathers, wide=gathers)
        dk, dv = (new_like(t, zero=packed or adds or q.numel() == 0, wide=adds) for t in (k, v))
        dbias = torch.zeros((*q.shape[:2], k.shape[2]), dtype=torch.float32, device=q.device) if of_bias else None
        if q.numel() == 0:
            dsink = None if sink is None else torch.zeros_like(sink)
            return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), dsink, dbias
        leaves = q, k, v
        q, k, v, out = (with_rows(tensor) for tensor in (q, k, v, out))
        sink = None if sink is None else aligned_tensor(sink)
        sums = row_sums(entries.row_sums, g, out, aligned_tensor(lse.contiguous()), grad_lse, sink, recorded)
        strided = {"q": q, "k": k, "v": v, "g": g}
        scale_log2 = self.plan.scale(scale) * LOG2_E
        call = LaunchCall.of(plan.forward, strided, q_offset, cu_seqlens, scale_log2, inputs, key_bias, recorded)
        tensors: dict[str, Tensor | None] = {**strided, "log_sum": sums[0], "delta": sums[1]}
        tensors |= {"grad_q": dq, "grad_k": dk, "grad_v": dv, "grad_bias": dbias}
        for entry, tables in zip(entries.queries, with_lists(plan.forward.classes, lists), strict=True):
            call.query_tiles(entry, tables, tensors, {"keys": k, "values": v})
        for entry, tables in zip(entries.keys, with_lists(plan.transposed, of_keys), strict=True):
            call.key_tiles(entry, tables, tensors, {"queries": q, "gradients": g})
        zeros = packed or gathers, packed or adds, packed or adds
        filled: list[tuple[Tensor, Fill]] = [
            (t, 0.0 if zero else None) for t, zero in zip((dq, dk, dv), zeros, strict=True)
        ]
        filled += [] if dbias is None else [(dbias, 0.0)]
        *scratch, parts = sums
        filled += [] if parts is None else [(parts, None)]
        if recorded is not None:
            made.replays.keep(key, recorded, given, filled, scratch)
        return _gradients_of([each for each, _ in filled], *leaves, of_bias)

    def mass(
        self,
        q: Tensor,
        k: Tensor,
        lse: Tensor,
        *,
        q_offset: int,
        scale: float | None = None,
        lists: Sequence[Tensor] = (),
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> Tensor:
        """See `backends.base.MassKernel`; raises as `forward` does."""
        check_runs_triton(q.device)
        made = self._gradients()
        mass = torch.zeros((*q.shape[:2], k.shape[2]), dtype=torch.float32, device=q.device)
        if q.numel() == 0:
            return mass
        q, k = with_rows(q), with_rows(k)
        strided = {"q": q, "k": k}
        scale_log2 = self.plan.scale(scale) * LOG2_E
        call = LaunchCall.of(made.plan.forward, strided, q_offset, cu_seqlens, scale_log2, inputs, key_bias)
        log_sum = (lse * LOG2_E).masked_fill_(lse == -math.inf, math.inf).contiguous()  # such a row gives no weight
        tensors: dict[str, Tensor | None] = {**strided, "log_sum": log_sum, "mass": mass}
        lists = made.draws.tables(q.shape[2], q_offset, q.device)
        for entry, tables in zip(made.entries.on(q.device).mass, with_lists(made.plan.transposed, lists), strict=True):
            call.key_tiles(entry, tables, tensors, {"queries": q})
        return mass

    def _gradients(self) -> Gradients:
        if self.gradients is None:
            raise InternalError("a kernel made without the plan of its gradients was asked for what needs it")
        return self.gradients()


def _gradients_of(
    made: Sequence[Tensor], q: Tensor, k: Tensor, v: Tensor, of_bias: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """What `backward` returns, of dq, dk, dv, dbias if it is asked for and, with a sink, the parts of its gradient."""
    dq, dk, dv = made[:3]
    parts = made[3 + of_bias :]
    dsink = parts[0].sum((0, 2)) if parts else None
    return as_dtype(dq, q.dtype), as_dtype(dk, k.dtype), as_dtype(dv, v.dtype), dsink, made[3] if of_bias else None


def with_positive_scale(q: Tensor, scale: float) -> tuple[Tensor, float]:
    """Queries and a scale of the same products: the forward kernels scale row maxima, which takes a positive one."""
    if scale > 0.0:
        return q, scale
    return (q * 0.0, 1.0) if scale == 0.0 else (-q, -scale)


def constants(plan: LaunchPlan, allow_tf32: bool, device: torch.device) -> dict[str, object]:
    """Arguments that follow from the plan alone; made once a device, for the modifiers' tables are copied there."""
    fixed: dict[str, object] = {
        "OPERAND": tl.float32 if interpreted() else getattr(tl, plan.dtype),
        "PRECISION": "tf32" if allow_tf32 and torch.version.hip is None else "ieee",
    }
    for modifier in modifiers_of(plan):
        fixed |= dict(modifier.numbers)
        fixed |= {name: device_tensor(list(values), device, torch.float32) for name, values in modifier.tables}
    return fixed


def _target_of_driver() -> str | None:
    """What Triton's own driver compiles for, where it takes tensors of the CPU, as that of `bench.stub` does."""
    with suppress(RuntimeError):  # Triton finds no driver
        active = triton.runtime.driver.active
        if active.get_active_torch_device().type == "cpu":
            found = active.get_current_target()
            return f"{found.backend}:{found.arch}"
    return None


def check_runs_triton(device: torch.device) -> None:
    if device.type == "cpu" and not interpreted() and _target_of_driver() is None:
        raise CallError("expected tensors on a GPU, got the CPU's: there Triton runs only under TRITON_INTERPRET=1")


def new_like(tensor: Tensor, *, zero: bool, wide: bool = False, columns: int | None = None) -> Tensor:
    """A contiguous tensor to write results to, with as many columns or `columns`.

    The interpreter truncates where it should round, so it gets float32.
    """
    shape = (*tensor.shape[:-1], tensor.shape[-1] if columns is None else columns)
    dtype = torch.float32 if wide or interpreted() else tensor.dtype
    return (torch.zeros if zero else torch.empty)(shape, dtype=dtype, device=tensor.device)


def with_lists(classes: tuple[LaunchClass, ...], lists: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    """Of each class the tables of its own lists."""
    first = 0
    for launched in classes:
        past = first + len(launched.lists)
        yield lists[first:past]
        first = past
