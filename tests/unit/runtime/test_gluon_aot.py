"""Gluon's kernels compiled ahead of time for sm_90 on a machine without a GPU: what the assembler says of them."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget

import sparsec
from sparsec.backends.gluon.emit import REGISTERS, GluonView, ScheduleView, emit_gluon, gluon_view
from sparsec.backends.gluon.kernel import SHAPE, box, layout_of_box
from sparsec.backends.triton.kernel import load_module
from sparsec.backends.triton.machine_code import nvidia_code
from sparsec.pipeline import Compilation
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.target import GLUON, shared_memory_bytes

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [pytest.mark.kernels, pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")]
S2 = "causal\nsoftcap 30\nalibi\nlearned_sink\nattend sink(64) | window(4b) | stride(8b, phase=h)"
BLOCKS = "causal\nattend window(64) | random(3b, seed=1)"


def signature(kernel: Any, plan: KernelPlan, view: GluonView, schedule: ScheduleView) -> dict[str, str]:
    """The types of a kernel's arguments."""
    sizes = {"queries": 64, "keys": schedule.kernel.key_tile, "values": schedule.kernel.key_tile}
    columns = {"queries": plan.head_dim, "keys": plan.head_dim, "values": plan.value_dim}
    pointees = {"out": "bf16", "lse": "fp32", "sink": "fp32", "head_slopes": "fp32"}
    found = {}
    for name in kernel.arg_names:
        if name in sizes:
            shape = box(sizes[name], columns[name])
            found[name] = f"tensordesc<bf16{shape},{layout_of_box(shape, torch.bfloat16)!r}>"
        elif name in view.sizes:
            found[name] = "i32"
        else:
            found[name] = "fp32" if name in ("scale_log2", "cap_log2") else f"*{pointees.get(name, 'i32')}"
    return found


@pytest.mark.parametrize(("text", "dims"), [(S2, (128, 128)), (BLOCKS, (64, 64)), ("causal\nattend full", (128, 64))])
def test_no_kernel_spills(text: str, dims: tuple[int, int]) -> None:
    from triton.experimental.gluon._runtime import GluonASTSource

    pattern = sparsec.parse(f"pattern p {{\nblock 64\n{text}\n}}").pattern()
    plan = Compilation(pattern.lowered(8, 4), *dims, "bfloat16", GLUON).forward
    view, module = gluon_view(plan), load_module(emit_gluon(plan))
    assert view.kernels
    for schedule in view.kernels:
        kernel = getattr(module, schedule.kernel.name)
        given = signature(kernel, plan, view, schedule)
        aligned = {(n,): [["tt.divisibility", 16]] for n, kind in enumerate(given.values()) if kind.startswith("*")}
        source = GluonASTSource(kernel, given, {}, aligned)
        options = {"num_warps": SHAPE.warps, "enable_fp_fusion": True}
        built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        _, listing, usage = nvidia_code(built)
        assert usage["spills"] == usage["stack"] == 0
        assert built.metadata.shared <= shared_memory_bytes(GLUON)
        assert re.search(r"\bHGMMA", listing) and re.search(r"\bUTMALDG", listing)
        asked = {int(number) for number in re.findall(r"setmaxnreg\S+\s+(\d+)", built.asm["ptx"])}
        assert set(REGISTERS[schedule.groups, schedule.parts > 2]) <= asked
