"""What the benchmarks time: patterns, lengths and passes, the figures that matter most first.

Invariant: heads, KV heads and head dimension decide the kernels, so that one build serves every length and batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from gpu import REHEARSAL

import sparsec
from sparsec.bench.baselines import BenchCase
from sparsec.program import Pattern
from sparsec.runtime.module import SparseAttention

SOURCE = """
pattern dense { causal attend full }
pattern sink_window { causal attend sink(64) | window(1k) }
pattern s2 { block 64 causal attend window(16b) | stride(16b, phase = -g) }
"""
HEADS, KV_HEADS, DTYPE = (2, 1, "bfloat16") if REHEARSAL else (8, 2, "bfloat16")
DECODE_HEADS, DECODE_KV_HEADS = (2, 1) if REHEARSAL else (32, 8)
_LENGTHS = {8192: 24, 32768: 32, 131072: 40} if REHEARSAL else {length: length for length in (8192, 32768, 131072)}
_BATCH = {8192: 1 if REHEARSAL else 4, 32768: 2, 131072: 1}
"""About as many programs at each length."""
_DECODE_BATCHES = (1, 2) if REHEARSAL else (1, 16)
PATTERNS = ("s2", "dense", "sink_window")
FLEX, DENSE = ("flex", "flex64"), ("flash", "cudnn")


@dataclass(frozen=True, slots=True)
class Row:
    """`decode`: one token over a cache of `length`; else forward, and forward and backward. `against`: baselines."""

    pattern: str
    length: int
    head_dim: int
    batch: int
    against: tuple[str, ...]
    decode: bool = False

    @property
    def heads(self) -> tuple[int, int]:
        return (DECODE_HEADS, DECODE_KV_HEADS) if self.decode else (HEADS, KV_HEADS)

    def case(self, device: torch.device) -> BenchCase:
        resolved = pattern(self.pattern).resolve(*self.heads)
        return BenchCase(resolved, self.batch, self.length, self.head_dim, getattr(torch, DTYPE), device)

    def compiled(self, device: torch.device, target: str = "triton") -> SparseAttention:
        heads, kv_heads = self.heads
        return sparsec.compile(
            pattern(self.pattern),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=self.head_dim,
            dtype=getattr(torch, DTYPE),
            device=device,
            target=target,
        )


def pattern(name: str) -> Pattern:
    return sparsec.parse(SOURCE).pattern(name)


def rows() -> tuple[Row, ...]:
    """Every pattern, length and head dimension, by what matters most, and decoding of each pattern, for few and many;
    then some again beside FlexAttention.

    FlexAttention compiles for every shape anew, for minutes: it comes last, and is left out where neither the README
    nor a bar asks for it.
    """
    found, flex = [], []
    for head_dim, length in ((128, 8192), (128, 32768), (128, 131072), (64, 8192), (64, 32768), (64, 131072)):
        for name in PATTERNS:
            row = Row(name, _LENGTHS[length], head_dim, _BATCH[length], DENSE)
            found.append(row)
            if length == 8192 or (head_dim == 128 and (length == 32768 or name == "s2")):
                flex.append(replace(row, against=FLEX))
        if (head_dim, length) == (128, 32768):
            found += [
                Row(name, _LENGTHS[131072], head_dim, batch, DENSE, decode=True)
                for name in PATTERNS
                for batch in _DECODE_BATCHES
            ]
    found += flex
    if REHEARSAL:  # in the interpreter a row takes seconds
        few = [row for row in found if row.pattern == "s2" and (row.length == _LENGTHS[8192] or row.decode)]
        return tuple(replace(row, head_dim=16) for row in few if row.head_dim == 128)
    return tuple(found)
