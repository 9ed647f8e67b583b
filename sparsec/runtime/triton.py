"""Generated Triton source -> launched kernels, on a GPU or, on CPU tensors, in Triton's interpreter.

Invariant: a new length, batch size or offset compiles nothing; two runs on the same inputs give the same bits.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsec.codegen.triton import adds_up, emit_triton, emit_triton_backward
from sparsec.diagnostics.model import CallError, InternalError
from sparsec.plan.kernel import BackwardPlan, HeadClass, KernelPlan
from sparsec.plan.target import backward_shape, launch_shape
from sparsec.runtime.build_cache import build_key, lookup, publish
from sparsec.runtime.draws import draw_tables
from sparsec.runtime.triton_call import FP_FUSION, Call, row_sums, with_rows

_MODULE_FILE = "kernels.py"


def interpreted() -> bool:
    """Whether this process runs Triton's kernels in the interpreter (TRITON_INTERPRET=1 when it was imported)."""
    return bool(triton.knobs.runtime.interpret)


class _TextLoader(SourceFileLoader):
    """Leaves no byte code beside the source: the cache's folders hold what was published, and nothing else is run."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def load_module(source: str) -> ModuleType:
    """Imports generated source from the build cache, once a process and text."""
    key = build_key("triton", triton.__version__, str(FP_FUSION), source)
    name = f"sparsec_triton_{key}"
    if name in sys.modules:
        return sys.modules[name]
    folder = lookup(key) or publish(key, {_MODULE_FILE: source.encode()})
    path = folder / _MODULE_FILE
    spec = importlib.util.spec_from_file_location(name, path, loader=_TextLoader(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return module


def target_of(device: torch.device) -> str:
    """The target name of a device: `cuda:90`, `hip:gfx942`, or `interpreter` for the CPU."""
    if device.type == "cpu":
        return "interpreter"
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return f"hip:{properties.gcnArchName.split(':')[0]}"
    return f"cuda:{properties.major}{properties.minor}"


@dataclass(frozen=True, slots=True)
class Gradients:
    """The backward plan and the source of its kernels."""

    plan: BackwardPlan
    source: str


@dataclass(frozen=True, slots=True)
class TritonKernel:
    """The kernels of one plan. `allow_tf32` lets float32 inputs be multiplied with TF32 tensor cores.

    `gradients` makes the backward kernels when the first gradient is asked for; without it there is no backward.
    """

    plan: KernelPlan
    source: str
    allow_tf32: bool = False
    gradients: Callable[[], Gradients] | None = None

    @classmethod
    def of(
        cls, plan: KernelPlan, *, allow_tf32: bool = False, plan_backward: Callable[[], BackwardPlan] | None = None
    ) -> TritonKernel:
        """`plan_backward` gives the plan of the gradients, of tiles of `plan.target.backward_tile_sizes`."""

        @cache
        def gradients() -> Gradients:
            assert plan_backward is not None
            made = plan_backward()
            return Gradients(made, emit_triton_backward(made))

        return cls(plan, emit_triton(plan), allow_tf32, None if plan_backward is None else gradients)

    @classmethod
    def load(cls, plan: KernelPlan, source: str, gradients: tuple[BackwardPlan, str] | None) -> TritonKernel:
        """The kernels of `source`, which `emit_triton` made, and of the gradients' plan and source, where given."""
        return cls(plan, source, gradients=None if gradients is None else lambda: Gradients(*gradients))

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
    ) -> tuple[Tensor, Tensor]:
        """See `runtime.kernel.Kernel`; `lists` are the tables of `runtime.draws`, class by class.

        Raises CallError for tensors on the CPU outside the interpreter.
        """
        check_device(q)
        scale = scale_of(self.plan, scale)
        out = new_like(q, zero=cu_seqlens is not None)
        lse = torch.full(q.shape[:3], -math.inf, dtype=torch.float32, device=q.device)
        if q.numel() == 0:
            return out.to(q.dtype), lse
        q, scale = with_positive_scale(q, scale)
        q, k, v = (with_rows(tensor) for tensor in (q, k, v))
        strided = {"q": q, "k": k, "v": v, "out": out}
        call = Call.of(self.plan, strided, q_offset, cu_seqlens, constants(self.plan, scale, self.allow_tf32))
        tensors = {"q": q, "out": out, "lse": lse, "sink": sink}
        module, target = load_module(self.source), target_of(q.device)
        for n, (head_class, tables) in enumerate(with_lists(self.plan.classes, lists)):
            tiles = head_class.program.query_tile, head_class.program.key_tile
            light = self.plan.light(head_class)
            shape = launch_shape(target, self.plan.head_dim, self.plan.dtype, *tiles, light=light)
            kernel = getattr(module, f"forward_{n}")
            call.query_tiles(kernel, head_class, shape, tables, tensors, {"keys": k, "values": v})
        return out.to(q.dtype), lse

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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """See `runtime.kernel.Kernel`; raises as `forward` does."""
        check_device(q)
        if self.gradients is None:
            raise InternalError("a kernel made without the plan of its gradients was asked for them")
        made = self.gradients()
        plan, source = made.plan, made.source
        packed, adds = cu_seqlens is not None, adds_up(plan)
        dq = new_like(q, zero=packed)
        dk, dv = (new_like(t, zero=packed or adds or q.numel() == 0, wide=adds) for t in (k, v))
        if q.numel() == 0:
            return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None if sink is None else torch.zeros_like(sink)
        types = q.dtype, k.dtype, v.dtype
        q, k, v, g, out = (with_rows(tensor) for tensor in (q, k, v, grad_out, out))
        module, target = load_module(source), target_of(q.device)
        log_sum, delta, dsink = row_sums(module.row_sums, g, out, lse.contiguous(), grad_lse, sink)
        strided = {"q": q, "k": k, "v": v, "g": g}
        numbers = constants(self.plan, scale_of(self.plan, scale), self.allow_tf32)
        call = Call.of(plan.forward, strided, q_offset, cu_seqlens, numbers)
        shape = partial(backward_shape, target, self.plan.head_dim, self.plan.dtype)
        tensors: dict[str, Tensor | None] = {**strided, "log_sum": log_sum, "delta": delta}
        tensors |= {"grad_q": dq, "grad_k": dk, "grad_v": dv}
        for n, (head_class, tables) in enumerate(with_lists(plan.forward.classes, lists)):
            tiles = head_class.program.query_tile, head_class.program.key_tile
            kernel = getattr(module, f"grad_queries_{n}")
            call.query_tiles(
                kernel, head_class, shape(*tiles, of_keys=False), tables, tensors, {"keys": k, "values": v}
            )
        specs = tuple(spec for head_class in plan.transposed for spec in head_class.program.lists)
        lists = draw_tables(specs, q.shape[2], q_offset, q.device)
        for n, (head_class, tables) in enumerate(with_lists(plan.transposed, lists)):
            tiles = head_class.program.query_tile, head_class.program.key_tile
            kernel = getattr(module, f"grad_keys_{n}")
            call.key_tiles(
                kernel, head_class, shape(*tiles, of_keys=True), tables, tensors, {"queries": q, "gradients": g}
            )
        return dq.to(types[0]), dk.to(types[1]), dv.to(types[2]), dsink


def scale_of(plan: KernelPlan, given: float | None) -> float:
    scale = plan.scale if given is None else given
    return 1.0 / math.sqrt(plan.head_dim) if scale is None else scale


def with_positive_scale(q: Tensor, scale: float) -> tuple[Tensor, float]:
    """Queries and a scale of the same products: the forward kernels scale row maxima, which takes a positive one."""
    if scale > 0.0:
        return q, scale
    return (q * 0.0, 1.0) if scale == 0.0 else (-q, -scale)


def constants(plan: KernelPlan, scale: float, allow_tf32: bool) -> dict[str, object]:
    """Arguments that follow from the plan and the scale alone."""
    return {
        "scale_log2": scale * math.log2(math.e),
        "cap_log2": (plan.softcap or 1.0) * math.log2(math.e),
        "OPERAND": tl.float32 if interpreted() else getattr(tl, plan.dtype),
        "PRECISION": "tf32" if allow_tf32 and torch.version.hip is None else "ieee",
    }


def check_device(q: Tensor) -> None:
    if q.device.type == "cpu" and not interpreted():
        raise CallError("expected tensors on a GPU, got the CPU's: there Triton runs only under TRITON_INTERPRET=1")


def new_like(tensor: Tensor, *, zero: bool, wide: bool = False) -> Tensor:
    """A contiguous tensor to write results to; the interpreter truncates where it should round, so it gets float32."""
    dtype = torch.float32 if wide or interpreted() else tensor.dtype
    return (torch.zeros if zero else torch.empty)(tensor.shape, dtype=dtype, device=tensor.device)


def with_lists(classes: tuple[HeadClass, ...], lists: Sequence[Tensor]) -> Iterator[tuple[HeadClass, Sequence[Tensor]]]:
    """Each class with the tables of its own lists."""
    first = 0
    for head_class in classes:
        past = first + len(head_class.program.lists)
        yield head_class, lists[first:past]
        first = past
