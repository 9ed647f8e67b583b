"""Every example pattern: its mask, its tiles and its forward pass against formulas written by hand (`formulas.py`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from formulas import CASES, Case, expected, expected_packed

import sparsec
from sparsec.pipeline import Lowered
from sparsec.program import Pattern
from sparsec.reference.mask import mask
from sparsec.sema.model import Documents, Score
from sparsec.sema.modifiers import Alibi, LearnedSink, Softcap
from sparsec.testing.probes import check_forward
from sparsec.testing.tiles import check_tiles

EXAMPLES = Path(__file__).parents[2] / "examples"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""In such a process Triton's kernels run on the CPU, and only they are tested: see `test_interpreted_triton`."""

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
compiled = pytest.mark.skipif(INTERPRETED, reason="this process tests interpreted Triton alone")


def pattern_of(case: Case) -> Pattern:
    return sparsec.load(EXAMPLES / f"{case.file}.sparse").pattern(case.pattern, **case.params)


@compiled
def test_every_pattern_of_every_example_has_a_formula() -> None:
    written = {(path.stem, name) for path in EXAMPLES.glob("*.sparse") for name in sparsec.load(path).patterns}
    assert written == {(case.file, case.pattern) for case in CASES}


@compiled
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.sparse")), ids=lambda path: path.stem)
def test_examples_have_no_problems(path: Path) -> None:
    """Loading raises on errors; which warnings are meant, the next test says."""
    assert {d.code for d in sparsec.load(path).diagnostics} <= {"W602", "W603"}


@compiled
def test_warnings_for_common_head_counts() -> None:
    """W602: heads of a group differ; W603: some causal pair is seen by no head. Each is so in the published system."""
    found = {}
    for path in EXAMPLES.glob("*.sparse"):
        program = sparsec.load(path)
        for name in program.patterns:
            warnings = program.pattern(name).warnings(*((16, 8) if path.stem == "gemma2" else (32, 8)))
            if warnings:
                found[name] = [d.code for d in warnings]
    assert found == {
        "longformer": ["W602", "W603"],
        "longgen_blocks": ["W603"],
        "phi3_small_sparse": ["W602"],
        "s2": ["W603"],  # eight groups take half of the sixteen phases
        "s2_by_head": ["W602"],
        "s2_one_phase": ["W603"],
        "sparse_transformer_strided": ["W603"],
        "sparse_transformer_fixed": ["W603"],
    }


@compiled
@cases
@pytest.mark.parametrize(("n_q", "n_k"), [(1, 1), (97, 97), (33, 150), (131, 333), (1, 700), (65, 1111)])
def test_mask_equals_the_formula(case: Case, n_q: int, n_k: int) -> None:
    if case.restart:
        bounds = (0, 0, n_q // 2, n_k)  # an empty document, and two
        heads = pattern_of(case).resolve(case.heads, case.kv_heads)
        actual = mask(heads, n_k, n_k, cu_seqlens=bounds).numpy()
        wanted = expected_packed(case, bounds)
    else:
        actual = pattern_of(case).mask(n_q, n_k, case.heads, case.kv_heads).numpy()
        wanted = expected(case, n_q, n_k)
    assert actual.dtype == np.bool_ and actual.shape == wanted.shape
    assert np.array_equal(actual, wanted), f"first difference (h, i, j): {np.argwhere(actual != wanted)[0].tolist()}"


@compiled
def test_defaults_are_those_of_the_formula_at_full_size() -> None:
    """One pattern with its published numbers, at a length at which window, stride and gaps all show."""
    pattern = sparsec.load(EXAMPLES / "phi3_small.sparse").pattern("phi3_small_sparse")
    case = next(case for case in CASES if case.pattern == "phi3_small_sparse")
    from formulas import pairs, s2

    wanted = s2(16, 8, by="head", offset=1)(pairs(3, 2500, 32, 8))
    assert case.heads == pattern.heads and np.array_equal(pattern.mask(3, 2500).numpy(), wanted)


@compiled
@pytest.mark.parametrize(
    ("file", "model", "dense_layers", "layers"),
    [
        ("phi3_small", "phi3_small", set(range(1, 32, 2)), 32),
        ("longgen", "longgen", set(range(10, 21)), 32),
        ("llama4_chunked", "llama4_chunked", set(range(3, 48, 4)), 48),
        ("gpt_oss", "gpt_oss", set(range(1, 24, 2)), 24),
        ("gemma2", "gemma2", set(range(1, 42, 2)), 42),
    ],
)
def test_models_are_dense_where_the_system_is(file: str, model: str, dense_layers: set[int], layers: int) -> None:
    found = sparsec.load(EXAMPLES / f"{file}.sparse").model(model)
    n = 9_000 if file in ("llama4_chunked", "gemma2") else 1_500
    whole = torch.ones(n, dtype=torch.bool)
    assert len(found) == layers
    heads = (16, 8) if file == "gemma2" else (32, 8)
    dense = {layer for layer in range(layers) if torch.equal(found.layer(layer).mask(1, n, *heads)[0, 0], whole)}
    assert dense == dense_layers


@compiled
def test_duo_attention_table() -> None:
    """The groups that see key 100 from position 1,000, layer by layer."""
    found = sparsec.load(EXAMPLES / "duo_attention.sparse").model("duo")
    table = [
        sorted({h // 4 for h in range(32) if found.layer(layer).mask(1, 1001, 32, 8)[h, 0, 100]}) for layer in range(32)
    ]
    wanted = [[]] * 2 + [[2]] * 6 + [[0, 3, 7]] * 8 + [[1, 4, 5]] * 4 + [[0, 3, 7]] * 2 + [[1, 4, 5]] * 9 + [[]]
    assert table == wanted


@compiled
@cases
@pytest.mark.parametrize(("n_q", "n_k"), [(97, 97), (131, 333), (1, 401)])
def test_tiles_are_exact(case: Case, n_q: int, n_k: int) -> None:
    """No visited tile is without a live pair, no full tile is run with a mask, and none the other way round."""
    pattern = pattern_of(case).resolve(case.heads, case.kv_heads)
    plan = Lowered(pattern).plan_forward(head_dim=64, dtype="float32", query_tile=pattern.block, key_tile=pattern.block)
    count = check_tiles(plan, torch.from_numpy(expected(case, n_q, n_k).copy()), n_k - n_q)
    assert count.visited and (count.empty, count.needless) == (0, 0), count


def check(case: Case, target: str, n_q: int, n_k: int, dtype: torch.dtype) -> None:
    attend = sparsec.compile(
        pattern_of(case),
        heads=case.heads,
        kv_heads=case.kv_heads,
        head_dim=16,
        dtype=dtype,
        target=target,
        device="cpu",
    )
    heads = pattern_of(case).resolve(case.heads, case.kv_heads)
    softcap = () if case.softcap is None else (Softcap(case.softcap),)
    score = Score(attend.scale, (*softcap, *[Alibi()] * case.alibi, *[LearnedSink()] * case.learned_sink))
    assert heads.score == score, "the formula table states another score than the example"
    assert heads.documents is (Documents.RESTART if case.restart else Documents.NONE)
    bounds, n_q = (0, n_q, n_q, n_k, n_q + n_k) if case.restart else None, n_q if not case.restart else n_q + n_k
    n_k = n_k if bounds is None else n_q
    generator = torch.Generator().manual_seed(n_q + n_k)
    q = torch.randn(1, case.heads, n_q, 16, generator=generator).to(dtype)
    k, v = (torch.randn(1, case.kv_heads, n_k, 16, generator=generator).to(dtype) for _ in "kv")
    if attend.sink is not None:
        with torch.no_grad():
            attend.sink.copy_(torch.linspace(-1.0, 2.0, case.heads))
    lengths = None if bounds is None else torch.tensor(bounds, dtype=torch.int32)
    visible = torch.from_numpy((expected(case, n_q, n_k) if bounds is None else expected_packed(case, bounds)).copy())
    check_forward(
        lambda q, k, v: attend(q, k, v, return_lse=True, cu_seqlens=lengths),
        *(q, k, v, visible, score),
        sink=attend.sink,
        apart=case.restart,
    )


@compiled
@cases
@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_forward(case: Case, target: str) -> None:
    for n_q, n_k in ((97, 97), (33, 401), (1, 333)):
        check(case, target, n_q, n_k, torch.float32)


@compiled
@pytest.mark.parametrize("target", ["torch", "cpu"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", [c for c in CASES if c.pattern in ("s2", "bigbird")], ids=lambda case: case.id)
def test_forward_in_16_bits(case: Case, target: str, dtype: torch.dtype) -> None:
    check(case, target, 97, 301, dtype)


@pytest.mark.skipif(not INTERPRETED, reason="run in a process of its own by test_interpreted_triton")
@cases
def test_forward_interpreted(case: Case) -> None:
    for n_q, n_k in ((41, 41), (17, 157)):
        check(case, "triton", n_q, n_k, torch.float32)


@compiled
def test_interpreted_triton() -> None:
    """Triton reads TRITON_INTERPRET when it is imported, so its interpreter has a process of its own."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-k", "test_forward_interpreted", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and f"{len(CASES)} passed" in done.stdout, done.stdout[-6000:] + done.stderr[-2000:]
