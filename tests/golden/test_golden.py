"""The IR, the plan and the generated sources of every example pattern, as files; `--update-golden` writes them.

One folder a pattern: `ir.txt`, `plan.txt` (the tile programs of the cpu target), `cpu.cpp` and `triton.txt` (Python
text for cuda:90), the sources of the gradients for the same targets, `backward.cpp` and `backward.triton.txt`, and
`layout.txt`, what a KV cache keeps and where.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

import sparsec
from sparsec.backends.cpu.emit import emit_cpp, emit_cpp_backward
from sparsec.backends.triton.emit import emit_triton, emit_triton_backward
from sparsec.ir.bands.printer import print_mask
from sparsec.pipeline import Lowered
from sparsec.plan.kernel import BackwardPlan, KernelPlan
from sparsec.plan.kv.cached import NoCache
from sparsec.plan.kv.printer import print_layout
from sparsec.plan.printer import print_plan, print_programs
from sparsec.plan.target import backward_tile_sizes, tile_sizes, transposed_tile_sizes
from sparsec.sema.model import ResolvedPattern

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
PATTERNS = [(path.name, name) for path in sorted(EXAMPLES.glob("*.sparse")) for name in sparsec.load(path).patterns]
KINDS = ("ir.txt", "plan.txt", "cpu.cpp", "triton.txt", "backward.cpp", "backward.triton.txt", "layout.txt")


def plan_for(pattern: ResolvedPattern, target: str, dtype: str) -> KernelPlan:
    query_tile, key_tile, *_ = tile_sizes(target, 128, dtype)
    return Lowered(pattern).plan_forward(head_dim=128, dtype=dtype, query_tile=query_tile, key_tile=key_tile)


def backward_plan_for(pattern: ResolvedPattern, target: str, dtype: str) -> BackwardPlan:
    query_tile, key_tile = backward_tile_sizes(target, 128, dtype)
    return Lowered(pattern).plan_backward(
        head_dim=128,
        dtype=dtype,
        query_tile=query_tile,
        key_tile=key_tile,
        transposed_tiles=transposed_tile_sizes(target, 128, dtype),
    )


def layout_text(heads: ResolvedPattern) -> str:
    try:
        return print_layout(Lowered(heads).layout)
    except NoCache as error:
        return f"no cache: {error}\n"


@cache
def texts(file: str, name: str) -> Mapping[str, str]:
    pattern = sparsec.load(EXAMPLES / file).pattern(name)
    heads = pattern.resolve(pattern.heads or 16, pattern.kv_heads or 8)
    cpu, gpu = plan_for(heads, "cpu", "float32"), plan_for(heads, "cuda:90", "bfloat16")
    return {
        "ir.txt": print_mask(Lowered(heads).mask),
        "plan.txt": f"{print_plan(cpu)}\n{print_programs(cpu.classes)}",
        "cpu.cpp": emit_cpp(cpu),
        "triton.txt": emit_triton(gpu),
        "backward.cpp": emit_cpp_backward(backward_plan_for(heads, "cpu", "float32")),
        "layout.txt": layout_text(heads),
        "backward.triton.txt": emit_triton_backward(backward_plan_for(heads, "cuda:90", "bfloat16")),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("file", "name"), PATTERNS, ids=[name for _, name in PATTERNS])
def test_golden(file: str, name: str, kind: str, update_golden: bool) -> None:
    path = HERE / name / kind
    text = texts(file, name)[kind]
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path.name} of {name} is missing: run pytest with --update-golden, and read the change"
    assert text == path.read_text(encoding="utf-8"), f"{name}/{kind} differs: --update-golden, and read the change"


def test_no_golden_folder_is_left_over(update_golden: bool) -> None:
    assert {path.name for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__"} == {
        name for _, name in PATTERNS
    }
