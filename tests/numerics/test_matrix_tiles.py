"""Products by matrix instructions: results by a model of these, object code of the real ones, and a refusal."""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import torch
from cpu_patterns import HEADS, KV_HEADS, PATTERNS, Pattern, causal, layouts
from test_cpu_kernel import assert_close, run
from test_micro_kernels import BAD, modelled
from torch import Tensor

from sparsec.backends.cpu.emit import emit_cpp
from sparsec.backends.cpu.kernel import (
    CpuKernel,
    compile_shared,
    find_compiler,
    has_compiler,
    micro_kernels_of,
    open_library,
)
from sparsec.plan.launch import LaunchPlan
from sparsec.sema import model as m

pytestmark = [
    pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 processor"),
]

MODEL = Path(__file__).parent / "amx_model.h"
THERE = "#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__)"
MATRICES = "pairs of bfloat16, tdpbf16ps or vdpbf16ps"
TWO_OF_FOUR = Pattern(
    lambda h, g: causal(*(m.Stride(4, (h + n) % 4, blocks=False) for n in range(2))),
    lambda i, j, h, g: (j <= i) & ((j - h) % 4 < 2),
)
"""A tile has 32 keys to attend to, which do not lie evenly."""
OF_DIM = {33: TWO_OF_FOUR, 64: PATTERNS["two_classes"]}
"""Head dimensions of parts of matrices and of whole ones."""
SHAPES = ((150, 171, 21), (64, 64, 0), (70, 50, 3))


def by_model(source: str) -> str:
    """The source for a processor that multiplies matrices as `amx_model.h` does, and pairs as the model of these."""
    source = modelled(source)
    assert source.count(THERE) == 4
    before, space, after = source.replace(THERE, "#if 1").partition("\nnamespace ")
    return f"{before}\n{MODEL.read_text()}{space}{after}"


def loaded(library: Path, head_dim: int) -> tuple[CpuKernel, ctypes.CDLL]:
    plan = OF_DIM[head_dim].plan(head_dim, "bfloat16")
    opened = open_library(library)
    return CpuKernel(LaunchPlan.of(plan), "", opened.sparsec_forward), opened


@cache
def built(head_dim: int, *, model: bool = True) -> Path:
    """By the model of matrices, or of pairs alone."""
    source = emit_cpp(OF_DIM[head_dim].plan(head_dim, "bfloat16"))
    return compile_shared((by_model if model else modelled)(source), optimise=1)


def counted(library: ctypes.CDLL, name: str) -> int:
    return ctypes.c_long.in_dll(library, f"sparsec_model_{name}").value


def inputs(head_dim: int, n_q: int, n_k: int) -> list[Tensor]:
    torch.manual_seed(head_dim + n_q)
    shapes = ((HEADS, n_q), (KV_HEADS, n_k), (KV_HEADS, n_k))
    return [torch.randn(2, heads, n, head_dim).bfloat16() for heads, n in shapes]


@pytest.mark.parametrize("head_dim", OF_DIM)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_by_a_model_of_the_instructions(head_dim: int, shape: tuple[int, int, int]) -> None:
    """Every thread gives its matrices back."""
    n_q, n_k, q0 = shape
    kernel, library = loaded(built(head_dim), head_dim)
    q, k, v = inputs(head_dim, n_q, n_k)
    before = counted(library, "products")
    assert_close(run(kernel, q, k, v, q0), q, k, v, OF_DIM[head_dim].mask(*shape))
    assert counted(library, "products") > before and counted(library, "asked") == 1
    assert counted(library, "held") == 0


def test_keys_of_any_strides_give_the_same_bits() -> None:
    kernel, _ = loaded(built(64), 64)
    q, k, v = inputs(64, 150, 171)
    want = run(kernel, q, k, v, 21)
    for same in zip(layouts(k), layouts(v), strict=True):
        assert all(map(torch.equal, run(kernel, q, *same, 21), want))


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_values_and_keys_that_are_not_seen_have_no_part(poison: float) -> None:
    """Bit for bit; a row that sees the value has it where it is, and the rest of its numbers as they were."""
    kernel, _ = loaded(built(64), 64)
    q, k, v = inputs(64, 64, 64)
    seen = PATTERNS["two_classes"].mask(64, 64, 0)[:, :, BAD].any(-1)
    spoilt, spoilt_key = v.clone(), k.clone()
    spoilt[:, :, BAD, 5] = poison
    spoilt_key[:, :, BAD] = poison
    kept = run(kernel, q, k, v, 0)[0]
    got, of_keys = run(kernel, q, k, spoilt, 0)[0], run(kernel, q, spoilt_key, v, 0)[0]
    for each in (got, of_keys):
        assert torch.equal(each[:, ~seen], kept[:, ~seen])
    assert not got[:, seen][..., 5].isfinite().any()
    got[..., 5] = kept[..., 5]
    assert torch.equal(got, kept) and seen.any() and not seen.all()
    assert not of_keys[:, seen].isfinite().all()


def test_a_process_that_is_refused_multiplies_pairs(tmp_path: Path) -> None:
    """Its library asks once, and has no matrix touched, which the model would not let pass."""
    library = tmp_path / "refused.so"
    shutil.copy(built(64), library)
    kernel, opened = loaded(library, 64)
    ctypes.c_int.in_dll(opened, "sparsec_model_refuses").value = 1
    q, k, v = inputs(64, 150, 171)
    got = [run(kernel, q, k, v, 21) for _ in range(2)]
    want = run(loaded(built(64, model=False), 64)[0], q, k, v, 21)
    assert all(map(torch.equal, got[0], want)) and all(map(torch.equal, got[1], want))
    assert counted(opened, "asked") == 1 and counted(opened, "products") == 0


def test_this_machine_runs_what_is_built_for_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real instructions where the system allows them, else the others; both in one library."""
    compiler = find_compiler()
    assert compiler is not None
    monkeypatch.setenv("CXX", " ".join((*compiler.command, "-mamx-tile", "-mamx-bf16")))
    library = compile_shared(emit_cpp(PATTERNS["two_classes"].plan(64, "bfloat16")), optimise=1)
    kernel, _ = loaded(library, 64)
    q, k, v = inputs(64, 150, 171)
    assert_close(run(kernel, q, k, v, 21), q, k, v, PATTERNS["two_classes"].mask(150, 171, 21))


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_object_code_keeps_sums_in_matrices() -> None:
    """Of each of the two products: four sums are made of zeros, or loaded, and stored once; nothing is stored between
    the instructions of the loop that adds to them."""
    library = compile_shared(
        emit_cpp(PATTERNS["two_classes"].plan(64, "bfloat16")), optimise=1, processor="sapphirerapids"
    )
    assert micro_kernels_of(library.read_bytes()) == {"forward": MATRICES}
    code = subprocess.run(("objdump", "-d", str(library)), capture_output=True, text=True, check=True).stdout
    functions = [each for each in re.split(r"\n\n", code) if "tdpbf16ps" in each]
    assert len(functions) == 2
    starts = []
    for function in functions:
        steps = re.findall(r"\t(tilezero|tileloadd|tdpbf16ps|tilestored) (.*)", function)
        sums = [f"%tmm{n}" for n in range(4)]
        stored = [operands.split(",")[0] for name, operands in steps if name == "tilestored"]
        added = [operands.split(",")[-1].strip() for name, operands in steps if name == "tdpbf16ps"]
        assert sorted(stored) == sorted(added) == sums
        first, last = (each(n for n, (name, _) in enumerate(steps) if name == "tdpbf16ps") for each in (min, max))
        assert not any(name == "tilestored" for name, _ in steps[first : last + 1])
        loaded_sums = [
            each.split(",")[-1] for name, each in steps if name == "tileloadd" and each.split(",")[-1] in sums
        ]
        zeroed = [each for name, each in steps if name == "tilezero"]
        assert sorted(loaded_sums + zeroed) == sums
        starts.append("zero" if zeroed else "load")
    assert sorted(starts) == ["load", "zero"]
    assert "ldtilecfg" in code and "tilerelease" in code


MISTAKES = {
    "a matrix without a shape": ("matrices that have shapes", "_tile_zero(0);"),
    "no leave": ("matrices without leave", "_tile_loadconfig(&config);"),
    "another palette": ("palette 1", "ask(); config.palette = 2; _tile_loadconfig(&config);"),
    "too many rows": ("16 rows", "ask(); config.rows[3] = 17; _tile_loadconfig(&config);"),
    "too many bytes": ("64 bytes", "ask(); config.row_bytes[3] = 68; _tile_loadconfig(&config);"),
    "a ninth matrix": ("of the palette", "ask(); _tile_loadconfig(&config); _tile_zero(8);"),
    "the sums as a factor": ("three matrices", "ask(); _tile_loadconfig(&config); _tile_dpbf16ps(0, 0, 6);"),
    "rows that differ": (
        "that agree",
        "ask(); config.rows[4] = 8; _tile_loadconfig(&config); _tile_dpbf16ps(0, 4, 6);",
    ),
    "units that differ": (
        "that agree",
        "ask(); config.row_bytes[4] = 32; _tile_loadconfig(&config); _tile_dpbf16ps(0, 4, 6);",
    ),
    "columns that differ": (
        "columns",
        "ask(); config.row_bytes[6] = 32; _tile_loadconfig(&config); _tile_dpbf16ps(0, 4, 6);",
    ),
    "another request": ("arch_prctl", "syscall(158L, 0x1022L, 18L);"),
}


@cache
def program_of_mistakes(folder: Path) -> Path:
    compiler = find_compiler()
    assert compiler is not None
    cases = "\n".join(f"if (n == {n}) {{ {text} }}" for n, (_, text) in enumerate(MISTAKES.values()))
    (folder / "mistakes.cpp").write_text(
        f"""{MODEL.read_text()}
void ask() {{ syscall(158L, 0x1023L, 18L); }}
int main(int, char** words) {{
  const int n = std::atoi(words[1]);
  amx_model::Config config = {{}};
  config.palette = 1;
  for (int m = 0; m < 8; ++m) config.rows[m] = 16, config.row_bytes[m] = 64;
  {cases}
}}
"""
    )
    subprocess.run((*compiler.command, "-std=c++17", "mistakes.cpp", "-o", "mistakes"), cwd=folder, check=True)
    return folder / "mistakes"


def test_the_model_refuses_what_a_processor_would(tmp_path: Path) -> None:
    program = program_of_mistakes(tmp_path)
    for n, (said, _) in enumerate(MISTAKES.values()):
        done = subprocess.run((str(program), str(n)), capture_output=True, text=True, check=False)
        assert done.returncode < 0 and said in done.stderr, n
    assert subprocess.run((str(program), str(len(MISTAKES))), check=False).returncode == 0
