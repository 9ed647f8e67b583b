"""Patterns, shapes and inputs for the tests of the generated C++: each set as a term and, by hand, as a formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsec.pipeline import Lowered
from sparsec.plan.kernel import BackwardPlan, KernelPlan
from sparsec.sema import model as m

HEADS, KV_HEADS = 4, 2
CAUSAL = m.Causal()
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def tokens(n: int, ahead: int = 0) -> m.Window:
    return m.Window(n, ahead, blocks=False)


def causal(*terms: m.Term) -> m.Term:
    return m.Intersection((CAUSAL, m.Union(terms)))


@dataclass(frozen=True, slots=True)
class Pattern:
    """`term(h, g)` for the compiler and, by hand, `formula(i, j, h, g)` for the test."""

    term: Callable[[int, int], m.Term]
    formula: Callable[[Tensor, Tensor, int, int], Tensor]
    block: int = 64

    @property
    def heads(self) -> m.ResolvedPattern:
        terms = tuple(self.term(h, h // (HEADS // KV_HEADS)) for h in range(HEADS))
        return m.ResolvedPattern(HEADS, KV_HEADS, terms, self.block, (), m.Documents.NONE, m.Score())

    def plan(self, head_dim: int, dtype: str) -> KernelPlan:
        return Lowered(self.heads).plan_forward(head_dim=head_dim, dtype=dtype, query_tile=64, key_tile=64)

    def backward_plan(self, head_dim: int, dtype: str) -> BackwardPlan:
        return Lowered(self.heads).plan_backward(head_dim=head_dim, dtype=dtype, query_tile=64, key_tile=64)

    def mask(self, n_q: int, n_k: int, q0: int) -> Tensor:
        i, j = torch.arange(q0, q0 + n_q)[:, None], torch.arange(n_k)[None, :]
        every = [self.formula(i, j, h, h // (HEADS // KV_HEADS)).expand(n_q, n_k) for h in range(HEADS)]
        return torch.stack(every)


def drawn(i: Tensor, j: Tensor, lane: int, count: int, block: int) -> Tensor:
    """The language's `random(count, seed = 7, lane = lane)`."""
    mask = torch.zeros(i.shape[0], j.shape[1], dtype=torch.bool)
    for row, position in enumerate(i.flatten().tolist()):
        qb = position // block
        for t in range(count if qb >= 0 else 0):
            z = 7 * 0x9E3779B97F4A7C15 + lane * 0xBF58476D1CE4E5B9 + qb * 0x94D049BB133111EB + t + 1
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
                z %= 1 << 64
                z = (z ^ (z >> shift)) * factor
            key_block = z % (1 << 64) % (qb + 1)
            mask[row, key_block * block : (key_block + 1) * block] = True
    return mask


PATTERNS = {
    "causal": Pattern(lambda h, g: CAUSAL, lambda i, j, h, g: j <= i),
    "full": Pattern(lambda h, g: m.Full(), lambda i, j, h, g: (i == i) & (j == j)),
    "sink_window": Pattern(
        lambda h, g: causal(tokens(100), m.Sink(10, blocks=False)),
        lambda i, j, h, g: (j <= i) & ((i - j < 100) | (j < 10)),
    ),
    "two_classes": Pattern(
        lambda h, g: CAUSAL if h < 2 else causal(tokens(70 + h), m.Sink(64, blocks=False)),
        lambda i, j, h, g: (j <= i) & (torch.tensor(h < 2) | (i - j < 70 + h) | (j < 64)),
    ),
    "s2": Pattern(
        lambda h, g: causal(m.Window(2, 0, blocks=True), m.Stride(4, -h % 4, blocks=True)),
        lambda i, j, h, g: (j <= i) & ((i // 16 - j // 16 < 2) | (j // 16 % 4 == -h % 4)),
        block=16,
    ),
    "token_stride": Pattern(
        lambda h, g: causal(tokens(5), m.Stride(37, 3 + h, blocks=False)),
        lambda i, j, h, g: (j <= i) & ((i - j < 5) | (j % 37 == 3 + h)),
    ),
    "dilated": Pattern(
        lambda h, g: m.Dilated(7, h, blocks=False),
        lambda i, j, h, g: (i - j) % 7 == h,
    ),
    "empty_rows": Pattern(
        lambda h, g: m.Intersection(
            (CAUSAL, m.Columns(m.Edge(20, False), m.Edge(-5, True), blocks=False), m.Complement(tokens(30)))
        ),
        lambda i, j, h, g: (i - j >= 30) & (j >= 20) & (j < j.shape[1] - 5),
    ),
    "random": Pattern(
        lambda h, g: causal(tokens(20), m.Random(2, 7, h)),
        lambda i, j, h, g: (j <= i) & ((i - j < 20) | drawn(i, j, h, 2, 32)),
        block=32,
    ),
}

SHAPES = (  # Nq, Nk, q0
    (130, 130, 0),
    (1, 333, 332),
    (77, 200, 123),
    (200, 77, -123),
    (65, 300, 40),
    (3, 40, -7),
    (70, 64, 500),
)


def inputs(n_q: int, n_k: int, head_dim: int, dtype: torch.dtype = torch.float32, batch: int = 2) -> list[Tensor]:
    torch.manual_seed(n_q * 1000 + n_k)
    shapes = ((HEADS, n_q), (KV_HEADS, n_k), (KV_HEADS, n_k))
    return [torch.randn(batch, h, n, head_dim).to(dtype) for h, n in shapes]


def layouts(t: Tensor) -> Iterator[Tensor]:
    """The same values in other memory: [B, N, H, D], dims reversed, every second element, inside a larger one."""
    yield t.transpose(1, 2).contiguous().transpose(1, 2)
    yield t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    yield torch.stack((t, torch.full_like(t, math.nan)), dim=-1)[..., 0]
    yield torch.nn.functional.pad(t, (3, 5, 2, 2), value=math.nan)[:, :, 2:-2, 3:-5]
