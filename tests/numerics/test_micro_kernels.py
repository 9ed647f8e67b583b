"""The micro-kernel that a compiler chooses: its name, its instructions, and its results by a model of these."""

from __future__ import annotations

import json
import platform
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import torch
from cpu_patterns import HEADS, KV_HEADS, PATTERNS, inputs
from dense_formula import Formula
from dense_formula import assert_close as assert_gradients_close
from test_cpu_kernel import assert_close, run

import sparsec
from sparsec.backends.cpu.backward import CpuBackward
from sparsec.backends.cpu.emit import emit_cpp, emit_cpp_backward
from sparsec.backends.cpu.kernel import (
    CpuKernel,
    build_kernels,
    compile_shared,
    find_compiler,
    has_compiler,
    micro_kernels_of,
    open_library,
)
from sparsec.plan.launch import BackwardLaunch, LaunchPlan
from sparsec.runtime.build.artefact import compile_to_directory

pytestmark = pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")

DIMS = (33, 96)
BAD = [41]
PAIRS = "pairs of bfloat16, vdpbf16ps"
INSTRUCTIONS = ("struct PairSums {", "struct Replaced {")
CHOSEN = (
    "#if (defined(__AVX512BF16__) && (defined(__AMX_BF16__) || !defined(__AVX512FP16__))) || \\\n"
    "    defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)\nstruct ElementPairs {"
)
MODEL = """
struct PairSums {
  static constexpr Name NAME = {"a model of pairs"};
  static constexpr bool OF_ROWS = true;
  static vec add(vec sum, ivec a, ivec b) {
    return sum + (vec)(a & int(0xffff0000)) * (vec)(b & int(0xffff0000)) + (vec)(a << 16) * (vec)(b << 16);
  }
  static ivec rounded(vec a, vec b) {
    uint16_t halves[2 * LANES];
    ivec both;
    for (int n = 0; n < LANES; ++n) halves[n] = Bfloat16::narrow(a[n]), halves[LANES + n] = Bfloat16::narrow(b[n]);
    std::memcpy(&both, halves, sizeof both);
    return both;
  }
};
#if 1
struct ElementPairs {"""


def modelled(source: str) -> str:
    """The source for a processor that multiplies pairs as `MODEL` does, whatever it was for."""
    assert source.count(CHOSEN) == 1
    return source.replace(*INSTRUCTIONS).replace(CHOSEN, MODEL)


@cache
def forward(head_dim: int, *, model: bool) -> CpuKernel:
    plan = PATTERNS["two_classes"].plan(head_dim, "bfloat16")
    source = emit_cpp(plan)
    library = compile_shared(modelled(source) if model else source, optimise=1)
    return CpuKernel(LaunchPlan.of(plan), source, open_library(library).sparsec_forward)


@pytest.mark.parametrize("head_dim", DIMS)
def test_pairs_by_a_model_of_their_instructions(head_dim: int) -> None:
    torch.manual_seed(head_dim)
    q = torch.randn(2, HEADS, 150, head_dim).bfloat16()
    k, v = torch.randn(2, 2, KV_HEADS, 171, head_dim).bfloat16()
    mask = PATTERNS["two_classes"].mask(150, 171, 21)
    results = [run(forward(head_dim, model=model), q, k, v, 21) for model in (True, False)]
    for result in results:
        assert_close(result, q, k, v, mask)
    assert (results[0][1] - results[1][1]).abs()[mask.any(-1).expand(2, -1, -1)].max() < 1e-5


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_values_that_are_not_seen_have_no_part_in_pairs(poison: float) -> None:
    """Row 40 sees the first key of a pair and not the second."""
    torch.manual_seed(1)
    q, k, v = (torch.randn(1, heads, 64, 33).bfloat16() for heads in (HEADS, KV_HEADS, KV_HEADS))
    seen = PATTERNS["two_classes"].mask(64, 64, 0)[:, :, BAD].any(-1)
    spoilt = v.clone()
    spoilt[:, :, BAD] = poison
    for model in (True, False):
        (kept, _), (got, _) = (run(forward(33, model=model), q, k, each, 0) for each in (v, spoilt))
        assert torch.equal(got[:, ~seen], kept[:, ~seen]) and not got[:, seen].isfinite().all()
        assert seen.any() and not seen.all()


def gradients(name: str, head_dim: int) -> CpuBackward:
    """By the model."""
    plan = PATTERNS[name].backward_plan(head_dim, "bfloat16")
    entry = open_library(compile_shared(modelled(emit_cpp_backward(plan)), optimise=1)).sparsec_backward
    return CpuBackward(BackwardLaunch.of(plan), lambda: entry)


@pytest.mark.parametrize(
    ("name", "shape", "apart"), [("two_classes", (150, 171, 21), 0.0), ("full", (64, 77, 0), 20.0)], ids=str
)
def test_gradients_of_pairs(name: str, shape: tuple[int, int, int], apart: float) -> None:
    """The last tile of the second case has an odd number of keys, and scores beside which 0 has a huge weight."""
    n_q, n_k, q0 = shape
    q, k, v = inputs(n_q, n_k, 33, torch.bfloat16)
    q, k = q + apart, k - apart
    formula = Formula(PATTERNS[name].mask(*shape))
    grads = torch.randn(q.shape).bfloat16(), torch.randn(q.shape[:3])
    kernel = build_kernels([PATTERNS[name].plan(33, "bfloat16")], optimise=1)[0]
    out, lse = run(kernel, q, k, v, q0)
    got = gradients(name, 33).backward(*grads, q, k, v, out, lse, q_offset=q0, scale=None, lists=())
    assert_gradients_close([out, lse, *got[:3]], formula, [q, k, v], grads)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64")
@pytest.mark.parametrize(
    ("processor", "dtype", "wanted"),
    [
        ("x86-64-v3", "bfloat16", "float32, 8 lanes"),
        ("x86-64-v4", "bfloat16", "float32, 16 lanes"),
        ("cooperlake", "bfloat16", PAIRS),
        ("cooperlake -mavx512fp16", "bfloat16", "float32, 16 lanes"),
        ("cooperlake", "float16", "float32, 16 lanes"),
    ],
)
def test_a_library_names_what_its_code_does(
    processor: str, dtype: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ahead of time, whatever runs here."""
    level, *more = processor.split()
    compiler = find_compiler()
    assert compiler is not None
    monkeypatch.setenv("CXX", shlex.join((*compiler.command, *more)))
    library = compile_shared(emit_cpp(PATTERNS["causal"].plan(64, dtype)), optimise=1, processor=level)
    assert micro_kernels_of(library.read_bytes()) == {"forward": wanted}
    if (objdump := shutil.which("objdump")) is None:
        pytest.skip("expected objdump, found none")
    done = subprocess.run((objdump, "-d", str(library)), capture_output=True, text=True, check=True)
    blocks = "".join(each for each in done.stdout.split("\n\n") if "accumulate_block" in each.partition(":")[0])
    of_pairs, of_floats = (len(re.findall(rf"\tv{name}ps .*[yz]mm", blocks)) for name in ("dpbf16", "(?:mul|fmadd)"))
    assert of_pairs > of_floats == 0 if wanted == PAIRS else of_floats > of_pairs == 0


def test_a_manifest_names_it(tmp_path: Path) -> None:
    """Of each function that multiplies; the mass of keys is of those widened."""
    pattern = sparsec.parse("pattern p { heads 1  causal  attend window(5) }").pattern()
    compile_to_directory(pattern, tmp_path / "p", target="cpu", head_dim=16, dtype="bfloat16", gradients=False)
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    names = {each["name"].removeprefix("sparsec_"): each["micro_kernel"] for each in manifest["kernels"]}
    products = "forward", "attend_chunk", "attend_rows", "add_mass"
    assert set(names) == {*products, "store"} and names["store"] is None
    widened = {names[name] for name in products if "bfloat16" not in names[name]}
    assert len(widened) == 1 and re.fullmatch(r"float32, \d+ lanes", widened.pop())
    has = {"avx512_bf16", "avx512_fp16", "amx_bf16"}.intersection(manifest["processor"]["instructions"])
    if has == {"avx512_bf16"}:
        assert {names[each] for each in products[:3]} == {PAIRS} != {names["add_mass"]}
    elif "amx_bf16" not in has:  # with it rows are of floats, and tiles of matrices
        assert len({names[each] for each in products}) == 1
