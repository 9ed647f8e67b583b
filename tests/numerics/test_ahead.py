"""What a forward kernel fetches while it computes a tile: the keys and values of the very tile that it takes next."""

from __future__ import annotations

import ctypes

import pytest
import torch
from cpu_patterns import HEADS, PATTERNS, inputs

from sparsec.backends.cpu.emit import emit_cpp
from sparsec.backends.cpu.kernel import CpuKernel, compile_shared, has_compiler, open_library
from sparsec.plan.launch import LaunchPlan
from sparsec.runtime.draws import draw_tables

pytestmark = [pytest.mark.kernels, pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")]
WATCH = {
    "inline void expect(Work& w, int tile) {\n": "  before = said, said = tile;\n",
    "void open_tile(Work& w, int tile) {\n": "  ++(before == FIRST ? first : before == tile ? right : wrong);\n",
    "    resume(w, h - head);\n": "    said = FIRST;\n",
    "    visit(w, call.lists, int(h));\n": "    wrong += said >= 0;\n",
    "#include <cstring>\n": "namespace { enum { FIRST = -2 }; int said, before, first, right, wrong; }\n",
}
"""Line -> what counts, behind it, tiles that are as said, that are not, and those that nothing comes before."""


def watched(source: str) -> str:
    for line, more in WATCH.items():
        assert source.count(line) == 1, line
        source = source.replace(line, line + more)
    return f'{source}extern "C" void counts(int* to) {{ to[0] = first, to[1] = right, to[2] = wrong; }}\n'


@pytest.mark.parametrize("name", ["sink_window", "s2"])
def test_a_kernel_says_which_tile_comes_next(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through all loops of a row of tiles, the empty ones between others too."""
    plan = PATTERNS[name].plan(8, "float32")
    library = open_library(compile_shared(watched(emit_cpp(plan)), optimise=1))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    q, k, v = inputs(900, 900, 8, batch=1)
    kernel = CpuKernel(LaunchPlan.of(plan), "", library.sparsec_forward)
    kernel.forward(q, k, v, q_offset=0, scale=None, lists=draw_tables(kernel.plan.lists, 900, 0, q.device))
    counts = (ctypes.c_int * 3)()
    library.counts(counts)
    first, right, wrong = counts
    assert first == HEADS * -(-900 // plan.classes[0].program.query_tile)
    assert right > first and wrong == 0
