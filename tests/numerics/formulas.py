"""The sets of the example patterns as formulas on i, j, h and g, written by hand from the papers.

Invariant: nothing here reads a `.sparse` file or imports sparsec; the parameters of a formula are those of its case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pairs:
    """i [1, Nq, 1], j [1, 1, Nk], h and g [H, 1, 1]; heads H, kv_heads G, nk keys."""

    i: Array
    j: Array
    h: Array
    g: Array
    heads: int
    kv_heads: int
    nk: int

    @property
    def causal(self) -> Mask:
        return self.j <= self.i


@dataclass(frozen=True, slots=True)
class Case:
    """One example pattern with parameters small enough that a few hundred keys meet every part of it."""

    file: str
    pattern: str
    params: dict[str, str | int]
    heads: int
    kv_heads: int
    formula: Callable[[Pairs], Mask]
    softcap: float | None = None
    alibi: bool = False
    learned_sink: bool = False
    restart: bool = False
    """Positions count from the start of each packed document, and no pair crosses a bound."""

    @property
    def id(self) -> str:
        shown = "-".join(f"{name}={value}" for name, value in self.params.items())
        return f"{self.pattern}-{shown}" if shown else self.pattern


def pairs(n_q: int, n_k: int, heads: int, kv_heads: int) -> Pairs:
    """Every pair of the last `n_q` of `n_k` positions."""
    h = np.arange(heads, dtype=np.int64)[:, None, None]
    i = np.arange(n_k - n_q, n_k, dtype=np.int64)[None, :, None]
    j = np.arange(n_k, dtype=np.int64)[None, None, :]
    return Pairs(i, j, h, h // (heads // kv_heads), heads, kv_heads, n_k)


def expected(case: Case, n_q: int, n_k: int) -> Mask:
    """The case's set, bool [H, Nq, Nk]; with `restart`, that of one document."""
    return np.broadcast_to(case.formula(pairs(n_q, n_k, case.heads, case.kv_heads)), (case.heads, n_q, n_k))


def expected_packed(case: Case, bounds: tuple[int, ...]) -> Mask:
    """The case's set over documents from bounds[d] to bounds[d + 1], each by itself: bool [H, N, N]."""
    whole = np.zeros((case.heads, bounds[-1], bounds[-1]), np.bool_)
    for start, stop in pairwise(bounds):
        whole[:, start:stop, start:stop] = expected(case, stop - start, stop - start)
    return whole


def dense(p: Pairs) -> Mask:
    return p.causal | (p.h < 0)


def s2(near: int, every: int, *, by: str, offset: int = 0, dense_groups: int = 0) -> Callable[[Pairs], Mask]:
    """C and (qb - kb < near, or the head is dense, or (kb + h'*s + o) % V == 0), s = max(1, V // H), blocks of 64."""

    def formula(p: Pairs) -> Mask:
        step = max(1, every // p.heads)
        who = {"group": p.g, "head": p.h, "none": 0 * p.h}[by]
        qb, kb = p.i // 64, p.j // 64
        local = (qb - kb < near) | (p.g >= p.kv_heads - dense_groups)
        return p.causal & (local | ((kb + who * step + offset) % every == 0))

    return formula


def sink_and_window(start: int, window: int) -> Callable[[Pairs], Mask]:
    return lambda p: p.causal & ((p.j < start) | (p.i - p.j < window)) & (p.h >= 0)


def longgen_blocks(start: int, near: int, every: int, offset: int) -> Callable[[Pairs], Mask]:
    def formula(p: Pairs) -> Mask:
        qb, kb = p.i // 64, p.j // 64
        return p.causal & ((kb < start) | (qb - kb < near) | ((kb - offset) % every == 0)) & (p.h >= 0)

    return formula


def some_groups_stream(dense_group: Callable[[Array], Mask], start: int, window: int) -> Callable[[Pairs], Mask]:
    return lambda p: p.causal & (dense_group(p.g) | (p.j < start) | (p.i - p.j < window))


def tri_shape(start: int, window: int, last: int) -> Callable[[Pairs], Mask]:
    return lambda p: p.causal & ((p.j < start) | (p.i - p.j < window) | (p.i >= p.nk - last)) & (p.h >= 0)


def longformer(reach: int, marked: int, dilated: tuple[int, ...], gap: int) -> Callable[[Pairs], Mask]:
    def formula(p: Pairs) -> Mask:
        away = np.abs(p.i - p.j)
        wide = np.isin(p.h, dilated)
        seen = np.where(wide, (away <= gap * reach) & (away % gap == 0), away <= reach)
        return seen | (p.i < marked) | (p.j < marked)

    return formula


def split_mix(counter: int) -> int:
    """SplitMix64's finaliser."""
    z = counter % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def bigbird(marked: int, near: int, drawn: int, seed: int) -> Callable[[Pairs], Mask]:
    def formula(p: Pairs) -> Mask:
        qb, kb = p.i // 64, p.j // 64
        last = -(-p.nk // 64) - marked
        seen = (np.abs(qb - kb) <= near) | (qb < marked) | (kb < marked) | (qb >= last) | (kb >= last) | (p.h < 0)
        for h in range(p.heads):
            for row, block in enumerate(qb.flatten().tolist()):
                for t in range(drawn):
                    counter = seed * 0x9E3779B97F4A7C15 + h * 0xBF58476D1CE4E5B9 + block * 0x94D049BB133111EB + t + 1
                    seen[h, row] |= (kb == split_mix(counter) % (block + 1))[0, 0]
        return seen

    return formula


def strided(step: int) -> Callable[[Pairs], Mask]:
    """The paper's A1 = {i - l .. i} and A2 = {j : (i - j) mod l = 0}, both causal."""
    return lambda p: p.causal & ((p.i - p.j <= step) | ((p.i - p.j) % step == 0)) & (p.h >= 0)


def fixed(section: int, summary: int) -> Callable[[Pairs], Mask]:
    """The paper's A1 = {j : j // l = i // l} and A2 = {j : j mod l in l - c .. l - 1}, both causal."""
    return lambda p: p.causal & ((p.j // section == p.i // section) | (p.j % section >= section - summary)) & (p.h >= 0)


def chunks(length: int) -> Callable[[Pairs], Mask]:
    return lambda p: p.causal & (p.i // length == p.j // length) & (p.h >= 0)


def around(width: int, reach: int) -> Callable[[Pairs], Mask]:
    """The pixels (a, b) at most `reach` rows and columns from pixel (x, y), of an image of `width` columns."""

    def formula(p: Pairs) -> Mask:
        (x, y), (a, b) = divmod(p.i, width), divmod(p.j, width)
        return (abs(a - x) <= reach) & (abs(b - y) <= reach) & (p.h >= 0)

    return formula


CASES = (
    Case("dense", "dense", {}, 4, 2, dense),
    Case("s2", "s2", {"local": "2b", "every": "4b"}, 4, 2, s2(2, 4, by="group")),
    Case("s2", "s2", {"local": "1b", "every": "8b", "offset": "3b"}, 4, 4, s2(1, 8, by="group", offset=3)),
    Case("s2", "s2_by_head", {"local": "1b", "every": "3b", "offset": "1b"}, 4, 2, s2(1, 3, by="head", offset=1)),
    Case("s2", "s2_by_head", {"local": "2b", "every": "16b"}, 4, 1, s2(2, 16, by="head")),
    Case("s2", "s2_one_phase", {"local": "1b", "every": "4b", "offset": "1b"}, 2, 1, s2(1, 4, by="none", offset=1)),
    Case("s2", "s2_dense_groups", {"local": "1b", "every": "4b"}, 6, 3, s2(1, 4, by="group", dense_groups=1)),
    Case("s2", "s2_dense_groups", {"dense_groups": 2, "local": "1b", "every": "4b"}, 3, 3,
         s2(1, 4, by="group", dense_groups=2)),
    Case("phi3_small", "phi3_small_sparse", {"local": "1b", "every": "4b"}, 32, 8, s2(1, 4, by="head", offset=1)),
    Case("phi3_small", "phi3_small_dense", {}, 32, 8, dense),
    Case("longgen", "longgen_sink", {"start": 5, "local": 70}, 2, 1, sink_and_window(5, 70)),
    Case("longgen", "longgen_blocks", {"start": "1b", "local": "2b", "every": "4b", "offset": "1b"}, 2, 1,
         longgen_blocks(1, 2, 4, 1)),
    Case("longgen", "longgen_full", {}, 2, 1, dense),
    Case("lm_infinite", "lm_infinite", {"local": 50}, 2, 2, sink_and_window(10, 50)),
    Case("duo_attention", "duo_attention", {"retrieval": "[0, 2]", "start": 7, "recent": 33}, 6, 3,
         some_groups_stream(lambda g: (g == 0) | (g == 2), 7, 33)),
    Case("duo_attention", "duo_streaming", {"start": 7, "recent": 33}, 4, 2, sink_and_window(7, 33)),
    Case("lserve_static", "lserve_static", {"start": 16, "local": 80}, 8, 4,
         some_groups_stream(lambda g: g % 2 == 0, 16, 80)),
    Case("a_shape", "a_shape", {"start": 20, "local": 64}, 2, 1, sink_and_window(20, 64)),
    Case("tri_shape", "tri_shape", {"start": 20, "local": 32, "last": 25}, 2, 1, tri_shape(20, 32, 25)),
    Case("longformer", "longformer", {"reach": 20, "marked": 3, "gap": 3}, 4, 2, longformer(20, 3, (0, 1), 3)),
    Case("bigbird", "bigbird", {"marked": "1b", "drawn": 1}, 4, 2, bigbird(1, 1, 1, 0)),
    Case("bigbird", "bigbird", {"marked": "2b", "near": "0b", "drawn": 2}, 2, 1, bigbird(2, 0, 2, 0)),
    Case("bigbird", "bigbird", {"near": "0b", "draw": 7}, 2, 2, bigbird(1, 0, 3, 7)),
    Case("sparse_transformer", "sparse_transformer_strided", {"step": 24}, 2, 1, strided(24)),
    Case("sparse_transformer", "sparse_transformer_fixed", {"section": "3b"}, 2, 1, fixed(48, 16)),
    Case("sparse_transformer", "sparse_transformer_fixed", {}, 2, 1, fixed(128, 16)),
    Case("sasa", "sasa", {"width": 40, "reach": 2}, 2, 1, around(40, 2)),
    Case("mistral", "mistral", {"local": 41}, 4, 1, sink_and_window(0, 41)),
    Case("llama4_chunked", "llama4_chunk", {"length": 48}, 4, 2, chunks(48)),
    Case("llama4_chunked", "llama4_full", {}, 4, 2, dense),
    Case("gpt_oss", "gpt_oss_window", {"local": 37}, 8, 1, sink_and_window(0, 37), learned_sink=True),
    Case("gpt_oss", "gpt_oss_full", {}, 8, 1, dense, learned_sink=True),
    Case("gemma2", "gemma2_window", {"local": 45}, 16, 8, sink_and_window(0, 45), softcap=50.0),
    Case("gemma2", "gemma2_full", {}, 16, 8, dense, softcap=50.0),
    Case("bloom", "bloom", {}, 12, 12, dense, alibi=True),
    Case("packed", "packed_window", {"local": 33}, 4, 2, sink_and_window(4, 33), restart=True),
    Case("packed", "packed_s2", {"local": "1b", "every": "4b"}, 4, 2, s2(1, 4, by="group"), restart=True),
)  # fmt: skip
