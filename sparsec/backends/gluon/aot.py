"""Gluon source -> machine code for sm_90 on a machine without such a GPU, with what the compiler made of it.

Invariant: as of `backends.triton.aot`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonASTSource

from sparsec.backends.gluon.emit import GROUP_ROWS, gluon_view
from sparsec.backends.gluon.kernel import SHAPE, box, layout_of_box
from sparsec.backends.triton.aot import TENSOR_CORES, TMA, KernelArtefact
from sparsec.backends.triton.assembler import assembling
from sparsec.backends.triton.launches import FP_FUSION, VECTOR_BYTES
from sparsec.backends.triton.lookups import ELEMENTS
from sparsec.backends.triton.machine_code import AheadOfTimeError, nvidia_code
from sparsec.backends.triton.modules import load_module
from sparsec.backends.triton.programs import Programs, of_listed, of_queries
from sparsec.backends.triton.record import launch_of
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.launch import LaunchPlan
from sparsec.plan.target import GLUON, PLAIN, LaunchShape

_GPU = GPUTarget("cuda", 90, 32)
_ELEMENTS = {"bfloat16": "bf16", "float16": "fp16"}
_REAL = ("lse", "sink", "head_slopes", "bias")
_ROWS = ("k", "v")
"""Pointers to float32, and to elements; all others but that of the output are to integers, of 32 bits unless ELEMENTS
knows better."""


def compile_ahead(source: str, plan: KernelPlan) -> tuple[KernelArtefact, ...]:
    """Builds every kernel of `source`, which `emit_gluon(plan)` gave. Raises AheadOfTimeError if the compiler fails."""
    view, module, launch = gluon_view(plan), load_module(source), LaunchPlan.of(plan)
    built = []
    for n in view.lists:
        kernel = getattr(module, f"copy_listed_{n}")
        built.append(_compile(kernel, launch, signature(kernel, plan, {}), of_listed(launch, view.listed_keys), PLAIN))
    for schedule in view.kernels:
        of, shape = launch.classes[schedule.kernel.number], replace(SHAPE, stages=schedule.stages)
        kernel = getattr(module, schedule.kernel.name)
        programs = of_queries(schedule.kernel.name, launch, of)[schedule.kernel.name]
        key_tile = schedule.kernel.key_tile
        rows = {"queries": GROUP_ROWS, "keys": key_tile, "values": key_tile}
        rows |= dict.fromkeys(schedule.listed, view.listed_keys)
        built.append(_compile(kernel, launch, signature(kernel, plan, rows), programs, shape))
    return tuple(built)


def _compile(
    kernel: Any, plan: LaunchPlan, given: dict[str, str], programs: Programs, shape: LaunchShape
) -> KernelArtefact:
    """`given`: the types of its arguments."""
    name, constants = kernel.__name__, {"VECTOR": VECTOR_BYTES // 2} if "VECTOR" in given else {}
    aligned = {(n,): [["tt.divisibility", 16]] for n, kind in enumerate(given.values()) if kind.startswith("*")}
    options = {"num_warps": shape.warps, "enable_fp_fusion": FP_FUSION}
    try:
        with assembling():
            made = triton.compile(GluonASTSource(kernel, given, constants, aligned), target=_GPU, options=options)
    except Exception as error:
        raise AheadOfTimeError(f"triton cannot compile {name} for {GLUON}: {error}") from error
    code, listing, usage = nvidia_code(made)
    described = Path(made.metadata_group[f"{name}.json"]).read_bytes()
    return KernelArtefact(
        name,
        GLUON,
        plan.dtype,
        shape.warps,
        shape.stages,
        usage["registers"],
        usage["spills"],
        usage["stack"],
        made.metadata.shared,
        len(TENSOR_CORES.findall(listing)),
        len(TMA.findall(listing)),
        tuple((f"{name}.{ending}", data) for ending, data in (*code, ("json", described))),
        launch_of(name, plan, programs, given, constants, made.metadata, dict(code)),
    )


def signature(kernel: Any, plan: KernelPlan, rows: Mapping[str, int]) -> dict[str, str]:
    """The types of a kernel's arguments. `rows`: of what TMA copies, those of a box."""
    element, dtype, found = _ELEMENTS[plan.dtype], getattr(torch, plan.dtype), dict[str, str]()
    for parameter in kernel.params:
        name = parameter.name
        if name in rows:
            copied = box(rows[name], plan.value_dim if "values" in name else plan.head_dim)
            found[name] = f"tensordesc<{element}{copied},{layout_of_box(copied, dtype)!r}>"
        elif parameter.is_constexpr:
            found[name] = "constexpr"
        elif parameter.do_not_specialize:
            found[name] = "i32"
        elif name == "out":
            found[name] = "*fp32" if plan.gathers else f"*{element}"
        elif re.search(r"_log2$", name):
            found[name] = "fp32"
        elif name in _ROWS or name.startswith("listed_"):
            found[name] = f"*{element}"
        else:
            real, of_bytes = name in _REAL, ELEMENTS.get(name.rpartition("_")[0]) == torch.uint8
            found[name] = "*fp32" if real else "*u8" if of_bytes else "*i32"
    return found
