"""The comparison with float64 accepts what is right and refuses what is not."""

from __future__ import annotations

import math

import pytest
import torch

import sparsec
from sparsec.bench.baselines import compare, copying, dense, eager, make_case, simplifications
from sparsec.diagnostics.model import CallError
from sparsec.reference import attention, mask
from sparsec.sema.model import ResolvedPattern, Score
from sparsec.sema.modifiers import Alibi, Softcap

PATTERN = "pattern p { causal attend window(70) | sink(3) }"


def resolved(text: str = PATTERN) -> ResolvedPattern:
    return sparsec.parse(text).pattern().resolve(4, 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("length", [1, 20, 500])
def test_the_right_output_passes(dtype: str, length: int) -> None:
    case = make_case(resolved(), 2, length, 16, dtype, "cpu")
    q, k, v = case.inputs()
    out, _ = attention(q, k, v, mask(case.pattern, length, length))
    found = compare(case.pattern, q, k, v, out.to(case.dtype))
    assert found.passed
    assert found.rows == min(length, 128)


@pytest.mark.parametrize("wrong", ["window(69) | sink(3)", "window(70) | sink(2)", "full", "none"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_output_of_another_pattern_fails(wrong: str, dtype: str) -> None:
    case = make_case(resolved(), 1, 500, 16, dtype, "cpu")
    q, k, v = case.inputs()
    out, _ = attention(q, k, v, mask(resolved(f"pattern p {{ causal attend {wrong} }}"), 500, 500))
    assert not compare(case.pattern, q, k, v, out.to(case.dtype)).passed


def test_nan_fails() -> None:
    case = make_case(resolved(), 1, 100, 16, "float32", "cpu")
    q, k, v = case.inputs()
    out, _ = attention(q, k, v, mask(case.pattern, 100, 100))
    out[0, 3, 99, 7] = math.nan
    assert not compare(case.pattern, q, k, v, out.float()).passed


def test_inputs_are_the_same_every_time() -> None:
    case = make_case(resolved(), 1, 8, 16, "float16", "cpu")
    assert all(torch.equal(a, b) for a, b in zip(case.inputs(), case.inputs(), strict=True))
    assert [tensor.shape[1] for tensor in case.inputs()] == [4, 2, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_a_copy_reads_memory_that_was_written(dtype: torch.dtype) -> None:
    # Pages that were never written are all one page of zeros.
    copied = copying(torch.empty((2, 1 << 20), dtype=dtype))()
    assert copied.dtype == dtype
    assert copied.shape == (2, 1 << 20)
    assert bool((copied == 1).all())


def test_dense_is_causal_attention_over_shared_heads() -> None:
    case = make_case(resolved("pattern p { causal attend full }"), 1, 40, 16, "float32", "cpu")
    q, k, v = case.inputs()
    exact, _ = attention(q, k, v, mask(case.pattern, 40, 40))
    torch.testing.assert_close(dense(q, k, v, causal=True, scale=None)().double(), exact, rtol=0, atol=1e-5)


SCORED = "pattern p { causal documents restart softcap 2 alibi learned_sink attend window(70) | columns(-9 ..) }"


def test_documents_are_one_that_fills_the_sequence() -> None:
    case = make_case(resolved(SCORED), 1, 200, 16, "float32", "cpu")
    attn = sparsec.compile(SCORED, heads=4, kv_heads=2, head_dim=16, target="torch")
    (q, k, v), live = case.inputs(), mask(case.pattern, 200, 200, cu_seqlens=(0, 200))
    exact, _ = attention(q, k, v, live, Score(None, (Softcap(2.0), Alibi())), sink=torch.zeros(4))
    for found in (case.call(attn)(q, k, v), eager(case.pattern, q, k, v)()):
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)
        assert compare(case.pattern, q, k, v, found).passed


def test_what_is_left_out_is_said() -> None:
    assert simplifications(resolved(SCORED), ("sdpa", "flex")) == (
        "documents: one that fills the sequence",
        "learned sink: 0",
        "sdpa runs without: softcap, alibi, learned sink",
        "flex runs without: learned sink",
    )
    assert simplifications(resolved("pattern p { softcap 2 attend full }"), ("flex",)) == ()
    assert simplifications(resolved(), ("sdpa", "flex")) == ()


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:77"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(CallError, match="expected a device of this machine"):
        make_case(resolved(), 1, 8, 16, "float32", device)
