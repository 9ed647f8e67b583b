"""Generated Triton source -> launched kernels, on a GPU or, on CPU tensors, in Triton's interpreter.

Invariant: a new length, batch size or offset compiles nothing; two runs on the same inputs give the same bits.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

FP_FUSION = True
"""Multiply and add become one instruction; passed to every compile, so that Triton's default does not matter."""
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch  # noqa: E402 (Triton reads its settings when first imported)
import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from triton.tools.tensor_descriptor import TensorDescriptor  # noqa: E402

from sparsec.codegen.triton import emit_triton, head_dim_chunks, head_table  # noqa: E402
from sparsec.diagnostics.model import CallError  # noqa: E402
from sparsec.plan.kernel import HeadClass, KernelPlan  # noqa: E402
from sparsec.plan.target import LaunchShape, launch_shape  # noqa: E402
from sparsec.runtime.build_cache import build_key, lookup, publish  # noqa: E402

_MODULE_FILE = "kernels.py"
_VECTOR_BYTES = 16
_ROW_REACH = 1 << 31
"""Offsets within one tile are 32 bits wide."""


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
class TritonKernel:
    """The kernels of one plan. `allow_tf32` lets float32 inputs be multiplied with TF32 tensor cores."""

    plan: KernelPlan
    source: str
    allow_tf32: bool = False

    @classmethod
    def of(cls, plan: KernelPlan, *, allow_tf32: bool = False) -> TritonKernel:
        return cls(plan, emit_triton(plan), allow_tf32)

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        q_offset: int,
        scale: float | None = None,
        lists: Sequence[torch.Tensor] = (),
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output [B, H, Nq, D] like q, and natural log-sum-exp [B, H, Nq], float32.

        q [B, H, Nq, D]; k, v [B, G, Nk, D]; query row r stands at q_offset + r. `scale` overrides the plan's. `lists`
        are the tables of `runtime.draws`, class by class. Shapes and dtypes are the caller's to check. Raises CallError
        for tensors on the CPU outside the interpreter.
        """
        if q.device.type == "cpu" and not interpreted():
            raise CallError("expected tensors on a GPU, got the CPU's: there Triton runs only under TRITON_INTERPRET=1")
        if scale is None:
            scale = self.plan.scale if self.plan.scale is not None else 1.0 / math.sqrt(self.plan.head_dim)
        out = torch.empty(q.shape, dtype=torch.float32 if interpreted() else q.dtype, device=q.device)
        lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
        if q.numel() == 0:
            return out.to(q.dtype), lse
        if scale <= 0.0:
            # The kernel scales row maxima, which takes a positive scale.
            q, scale = (q * 0.0, 1.0) if scale == 0.0 else (-q, -scale)
        q, k, v = (_with_rows(tensor) for tensor in (q, k, v))
        module = load_module(self.source)
        target = target_of(q.device)
        for n, head_class in enumerate(self.plan.classes):
            kernel = getattr(module, f"forward_{n}")
            shape = launch_shape(
                target,
                self.plan.head_dim,
                self.plan.dtype,
                head_class.program.query_tile,
                head_class.program.key_tile,
            )
            first = sum(len(before.program.lists) for before in self.plan.classes[:n])
            tables = lists[first : first + len(head_class.program.lists)]
            self._launch(kernel, head_class, shape, (q, k, v, out, lse), tables, q_offset, scale)
        return out.to(q.dtype), lse

    def _launch(
        self,
        kernel: Any,
        head_class: HeadClass,
        shape: LaunchShape,
        tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
        tables: Sequence[torch.Tensor],
        q_offset: int,
        scale: float,
    ) -> None:
        q, k, v, out, lse = tensors
        program = head_class.program
        n_queries, n_keys = q.shape[2], k.shape[2]
        first_tile = q_offset // program.query_tile
        tiles = (q_offset + n_queries - 1) // program.query_tile + 1 - first_tile
        vector = _vector(q, k, v, out)
        tma = shape.tma and vector > 1 and _fits_descriptor(k) and _fits_descriptor(v)
        sources: list[object] = []
        for chunk in head_dim_chunks(self.plan.head_dim):
            block = [1, 1, program.key_tile, chunk.width]
            sources.extend(TensorDescriptor(t, list(t.shape), list(t.stride()), block) if tma else t for t in (k, v))
        strides = [stride // vector for t in (q, k, v, out) for stride in t.stride()[:3]]
        table = _table_on(head_class, q.device)
        kernel[(tiles * len(head_class.heads) * q.shape[0],)](
            q,
            *sources,
            out,
            lse,
            table,
            *tables,
            *strides,
            n_queries,
            n_keys,
            q_offset,
            first_tile,
            tiles,
            q.shape[0],
            scale * math.log2(math.e),
            VECTOR=vector,
            TMA=tma,
            OPERAND=tl.float32 if interpreted() else getattr(tl, self.plan.dtype),
            PRECISION="tf32" if self.allow_tf32 and torch.version.hip is None else "ieee",
            num_warps=shape.warps,
            num_stages=shape.stages,
            enable_fp_fusion=FP_FUSION,
        )


def _with_rows(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself if its last dimension is dense and its rows lie close enough; else a copy."""
    dense = tensor.stride(3) == 1 or tensor.shape[3] == 1
    return tensor if dense and tensor.stride(2) * 256 < _ROW_REACH else tensor.contiguous()


def _vector(*tensors: torch.Tensor) -> int:
    """Elements in 16 bytes if every row of every tensor starts on such a boundary, else 1."""
    vector = _VECTOR_BYTES // tensors[0].element_size()
    for tensor in tensors:
        count = _VECTOR_BYTES // tensor.element_size()
        if tensor.data_ptr() % _VECTOR_BYTES or any(stride % count for stride in tensor.stride()[:3]):
            return 1
    return vector


def _fits_descriptor(tensor: torch.Tensor) -> bool:
    """Whether a TMA descriptor may describe the tensor: no repeated or empty dimension, strides below 2**40 bytes."""
    strides = tensor.stride()[:3]
    return tensor.shape[2] > 0 and all(0 < stride * tensor.element_size() < 1 << 40 for stride in strides)


@lru_cache(maxsize=256)
def _table_on(head_class: HeadClass, device: torch.device) -> torch.Tensor:
    return torch.tensor(head_table(head_class), dtype=torch.int32, device=device)
