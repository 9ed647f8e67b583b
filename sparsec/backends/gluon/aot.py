"""Gluon source -> machine code for sm_90 on a machine without such a GPU, with what the compiler made of it.

Invariant: as of `backends.triton.aot`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonASTSource

from sparsec.backends.gluon.emit import GROUP_ROWS, ScheduleView, gluon_view
from sparsec.backends.gluon.kernel import SHAPE, box, layout_of_box
from sparsec.backends.triton.aot import TENSOR_CORES, TMA, KernelArtefact
from sparsec.backends.triton.assembler import assembling
from sparsec.backends.triton.launches import FP_FUSION
from sparsec.backends.triton.lookups import ELEMENTS
from sparsec.backends.triton.machine_code import AheadOfTimeError, nvidia_code
from sparsec.backends.triton.modules import load_module
from sparsec.backends.triton.programs import of_queries
from sparsec.backends.triton.record import launch_of
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.launch import LaunchPlan
from sparsec.plan.target import GLUON

_GPU = GPUTarget("cuda", 90, 32)
_ELEMENTS = {"bfloat16": "bf16", "float16": "fp16"}
_REAL = ("lse", "sink", "head_slopes", "bias")
"""Pointers to float32; all others but that of the output are to integers, of 32 bits unless ELEMENTS knows better."""


def compile_ahead(source: str, plan: KernelPlan) -> tuple[KernelArtefact, ...]:
    """Builds every kernel of `source`, which `emit_gluon(plan)` gave. Raises AheadOfTimeError if the compiler fails."""
    view, module, launch = gluon_view(plan), load_module(source), LaunchPlan.of(plan)
    built = []
    for schedule in view.kernels:
        of = launch.classes[schedule.kernel.number]
        kernel = getattr(module, schedule.kernel.name)
        programs = of_queries(schedule.kernel.name, launch, of)[schedule.kernel.name]
        given = signature(kernel, plan, schedule)
        aligned = {(n,): [["tt.divisibility", 16]] for n, kind in enumerate(given.values()) if kind.startswith("*")}
        options = {"num_warps": SHAPE.warps, "enable_fp_fusion": FP_FUSION}
        try:
            with assembling():
                made = triton.compile(GluonASTSource(kernel, given, {}, aligned), target=_GPU, options=options)
        except Exception as error:
            raise AheadOfTimeError(f"triton cannot compile {kernel.__name__} for {GLUON}: {error}") from error
        code, listing, usage = nvidia_code(made)
        described = Path(made.metadata_group[f"{kernel.__name__}.json"]).read_bytes()
        built.append(
            KernelArtefact(
                kernel.__name__,
                GLUON,
                plan.dtype,
                SHAPE.warps,
                schedule.stages,
                usage["registers"],
                usage["spills"],
                usage["stack"],
                made.metadata.shared,
                len(TENSOR_CORES.findall(listing)),
                len(TMA.findall(listing)),
                tuple((f"{kernel.__name__}.{ending}", data) for ending, data in (*code, ("json", described))),
                launch_of(kernel.__name__, launch, programs, given, {}, made.metadata, dict(code)),
            )
        )
    return tuple(built)


def signature(kernel: Any, plan: KernelPlan, schedule: ScheduleView) -> dict[str, str]:
    """The types of a kernel's arguments."""
    element, dtype = _ELEMENTS[plan.dtype], getattr(torch, plan.dtype)
    rows = {"queries": GROUP_ROWS, "keys": schedule.kernel.key_tile, "values": schedule.kernel.key_tile}
    columns = {"queries": plan.head_dim, "keys": plan.head_dim, "values": plan.value_dim}
    found = {}
    for name in kernel.arg_names:
        if name in rows:
            copied = box(rows[name], columns[name])
            found[name] = f"tensordesc<{element}{copied},{layout_of_box(copied, dtype)!r}>"
        elif name in schedule.sizes:
            found[name] = "i32"
        elif name == "out":
            found[name] = "*fp32" if plan.gathers else f"*{element}"
        elif re.search(r"_log2$", name):
            found[name] = "fp32"
        else:
            real, of_bytes = name in _REAL, ELEMENTS.get(name.rpartition("_")[0]) == torch.uint8
            found[name] = "*fp32" if real else "*u8" if of_bytes else "*i32"
    return found
