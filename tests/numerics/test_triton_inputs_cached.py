"""Patterns with inputs over a cache in Triton's interpreter: a chunk and few rows, against dense attention."""

from __future__ import annotations

import pytest
import torch
from input_patterns import pattern
from test_inputs_cached import DIM, walk
from torch import Tensor
from triton_harness import in_interpreter, interpreted, passes_in_the_interpreter

import sparsec
from sparsec.backends.triton.cached import TritonCached
from sparsec.backends.triton.kernel import new_like
from sparsec.pipeline import Compilation, Lowered
from sparsec.runtime.module import SparseAttention

STEPS = ((17, 0), (1, 1), (3, 4))
CASES = (
    *(
        ("causal tokens", False),
        ("causal columns", False),
        ("vertical and slash", True),
        ("all but slashes", False),
        ("causal slash_tiles", False),
    ),
    *(("causal rows", False), ("pages alone", False), ("pages alone", True)),
    *(("causal cells", False), ("causal labels", True), ("causal tree", False)),
    *(("run-time sink", True), ("two lists", True), ("draws", False)),
)
"""Terms, and whether inputs tell the query heads of a KV group apart."""


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


@in_interpreter
@pytest.mark.parametrize(("name", "per_head"), CASES)
def test_calls_are_dense_attention(name: str, per_head: bool) -> None:
    plans = Compilation(Lowered(pattern(name)), DIM, DIM, "float32", "interpreter").cached
    walk(TritonCached.of(*plans), name, STEPS, per_head=per_head)


@in_interpreter
def test_what_tiles_leave_for_lists_is_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU results are written in the queries' dtype, but for a chunk's tiles and lists, which meet in float32."""
    written = list[bool]()

    def noted(tensor: Tensor, *, zero: bool, wide: bool = False, columns: int | None = None) -> Tensor:
        written.append(wide)
        return new_like(tensor, zero=zero, wide=wide, columns=columns)

    monkeypatch.setattr("sparsec.backends.triton.cached.new_like", noted)
    plans = Compilation(Lowered(pattern("pages alone")), DIM, DIM, "float32", "interpreter").cached
    walk(TritonCached.of(*plans), "pages alone", STEPS[:2], per_head=False)
    assert written == [True, False]


TEXT = """
pattern p {
    input marks : tokens
    input pages : rows(blocks)
    input merged : weights
    heads 4 kv 2  block 16  causal  softcap 3  learned_sink  key_bias merged
    where g in [0] attend sink(4) | window(20) | marks | pages
    otherwise attend pages & window(40)
}
"""


@torch.no_grad()
def results(attn: SparseAttention) -> list[Tensor]:
    """Rows of two lengths with padding, a fork, and steps after tokens were taken back and sequences exchanged."""
    attn.sink.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
    generator = torch.Generator().manual_seed(3)
    cache, found = attn.new_cache(2, 64), list[Tensor]()

    def step(rows: int, stop: int, lengths: list[int] | None = None) -> None:
        """`stop`: of the longest sequence."""
        q, k, v = (
            torch.randn((2, heads, rows, dim), generator=generator) for heads, dim in ((4, 16), (2, 16), (2, 24))
        )
        marks = torch.rand((2, 2, rows), generator=generator) < 0.3
        pages = torch.rand((2, 2, rows, -(-stop // 16) + 1), generator=generator).argsort(-1)[..., :2] - 1
        merged = torch.rand((2, 2, rows), generator=generator)
        inputs = {"marks": marks, "pages": pages.to(torch.int32), "merged": merged}
        found.extend(attn(q, k, v, cache=cache, lengths=lengths, inputs=inputs, check_inputs=True, return_lse=True))

    step(20, 20, [20, 13])
    step(18, 38)
    whole = cache.fork()
    cache.truncate([36, 31])
    cache.reorder([1, 0])
    step(2, 38, [2, 1])
    cache = whole
    step(1, 39)
    return found


@in_interpreter
def test_a_module_gives_what_the_torch_target_gives() -> None:
    ours, theirs = (
        results(sparsec.compile(TEXT, head_dim=16, value_dim=24, target=target, device="cpu"))
        for target in ("triton", "torch")
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
