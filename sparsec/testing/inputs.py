"""A seed -> tensors for the run-time inputs of a pattern, of one call: what no kernel may take for granted is in them.

Invariant: shapes are right, and so are the numbers, unless they are asked to be wild: entries of a list are distinct
but for absent ones, which are of any size; lists may be empty, strides are any, the batch and the heads may be 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from sparsec.sema.inputs import settled
from sparsec.sema.model import InputDecl, InputKind, InputUnit, ResolvedPattern
from sparsec.sema.modifiers import KeyBias
from sparsec.sema.shapes import Sizes, tile_columns, tile_of, tile_rows

InputTensors = Tensor | tuple[Tensor, Tensor]
LONGEST_LIST = 7
LARGEST_TREE = 9


def drawn_inputs(
    pattern: ResolvedPattern,
    *,
    batch: int,
    n_q: int,
    n_k: int,
    q_offset: int,
    seed: int,
    wild: bool = False,
    new_keys: int | None = None,
) -> dict[str, InputTensors]:
    """On the CPU, by name. `wild`: integers are any, and a list may name one twice. `new_keys`: those that the call
    brings, beside what a cache has; all of them if left out."""
    brought = n_k if new_keys is None else new_keys
    sizes = Sizes(batch, pattern.heads, pattern.kv_heads, n_q, brought, n_k, q_offset)
    draw = _Draw(torch.Generator().manual_seed(seed), sizes, pattern.block, wild)
    return {decl.name: draw.of(decl) for decl in settled(pattern.inputs, pattern.block)}


def key_bias_in(pattern: ResolvedPattern, given: Mapping[str, InputTensors] | None) -> Tensor | None:
    """The weights that the pattern's keys add to their scores; None if they add none."""
    modifier = pattern.score.get(KeyBias)
    if modifier is None or given is None:
        return None
    weights = given[pattern.inputs[modifier.ordinal].name]
    assert isinstance(weights, Tensor), "weights are one tensor"
    return weights


@dataclass(frozen=True, slots=True)
class _Draw:
    """One source of numbers for all tensors of a call."""

    generator: torch.Generator
    sizes: Sizes
    block: int
    wild: bool

    @property
    def keys(self) -> int:
        return self.sizes.new_keys if self.sizes.n_k is None else self.sizes.n_k

    def of(self, decl: InputDecl) -> InputTensors:
        sizes, first = self.sizes, (self.one_of((1, self.sizes.batch or 1)), self.heads())
        match decl.kind:
            case InputKind.LENGTH:
                lengths = self.integers(-3, self.keys + 9, first if self.chance(0.5) else first[:1])
                return self.integral(self.some(lengths, (0, -(2**31), 2**31 - 1), 0.2))
            case InputKind.TOKENS:
                shape = (*first, sizes.new_keys) if self.chance(0.5) else (first[0], sizes.new_keys)
                return self.strided(self.marks(shape))
            case InputKind.COLUMNS | InputKind.ROWS:
                end = -(-self.keys // self.block) if decl.unit is InputUnit.BLOCKS else self.keys
                return self.lists((*first, sizes.n_q) if decl.kind is InputKind.ROWS else first, end)
            case InputKind.SLASHES:
                last = max((sizes.q_offset or 0) + sizes.n_q - 1, 0)
                blocks = last // self.block + 1
                ends = {InputUnit.TOKENS: last + 1, InputUnit.BLOCKS: blocks, InputUnit.TILES: blocks * self.block}
                return self.lists(first, ends[decl.unit])
            case InputKind.BLOCKS if self.chance(0.5):
                needed = (tile_rows(decl, sizes), tile_columns(decl, sizes))
                return self.strided(self.marks((*first, *(n + self.one_of((0, 0, 2)) for n in needed))))
            case InputKind.BLOCKS:
                shape = (*first, tile_rows(decl, sizes) + self.one_of((0, 0, 2)))
                indices = self.lists(shape, -(-self.keys // tile_of(decl)[1]))
                return self.integral(self.integers(0, indices.shape[-1] + 1, shape)), indices
            case InputKind.LABELS:
                scale = self.one_of((1, 1, 2**28))
                queries, keys = (
                    self.integral(self.integers(-1, 4, shape) * scale)
                    for shape in ((*first, sizes.n_q), (first[0], self.heads(), sizes.new_keys))
                )
                return queries, keys
            case InputKind.TREE:
                n = min(self.number(LARGEST_TREE + 1), self.keys)
                parents = [self.integers(-1, max(token, 0), first[:1]) for token in range(n)]
                return self.integral(
                    torch.stack(parents, 1) if parents else torch.zeros((first[0], 0), dtype=torch.int64)
                )
            case InputKind.WEIGHTS:
                drawn = torch.randn((*first, sizes.new_keys), generator=self.generator)
                return self.strided(drawn.masked_fill(self.marks(drawn.shape, 0.1), -torch.inf))
            case _:
                assert_never(decl.kind)

    def number(self, end: int) -> int:
        return int(torch.randint(0, end, (), generator=self.generator))

    def one_of(self, numbers: Sequence[int]) -> int:
        return numbers[self.number(len(numbers))]

    def chance(self, of: float) -> bool:
        return bool(torch.rand((), generator=self.generator) < of)

    def heads(self) -> int:
        return self.one_of((1, self.sizes.kv_heads, self.sizes.heads))

    def integers(self, start: int, end: int, shape: Sequence[int]) -> Tensor:
        return torch.randint(start, end, tuple(shape), generator=self.generator)

    def marks(self, shape: Sequence[int], density: float = 0.3) -> Tensor:
        return torch.rand(tuple(shape), generator=self.generator) < density

    def some(self, numbers: Tensor, others: Sequence[int], density: float) -> Tensor:
        """The numbers, some of which are one of `others`."""
        chosen = torch.tensor(others)[self.integers(0, len(others), numbers.shape)]
        return torch.where(self.marks(numbers.shape, density), chosen, numbers)

    def lists(self, shape: Sequence[int], end: int) -> Tensor:
        """Along the last axis some of the numbers 0 .. end - 1, each once, and absent ones, in any order."""
        length = self.one_of((0, 1, 2, LONGEST_LIST, end + 1))
        order = torch.rand((*shape, end), generator=self.generator).argsort(-1)[..., :length]
        missing = torch.full((*shape, length - order.shape[-1]), -1)
        absent = (-1, -9, end, end + 5, -(2**31), 2**31 - 1)
        return self.integral(self.some(torch.cat((order, missing), -1), absent, 0.2))

    def integral(self, numbers: Tensor) -> Tensor:
        """Of one of the two dtypes; of int64, what is past int32 may be far past it."""
        if self.wild:
            numbers = self.some(numbers, (-(2**31), 2**31 - 1, -1, 0, 1, 1, 2**30), 0.5)
        if self.chance(0.5):
            return self.strided(numbers.to(torch.int32))
        return self.strided(torch.where(numbers.abs() >= 2**31 - 1, numbers * 2**31, numbers))

    def strided(self, values: Tensor) -> Tensor:
        """The same values; some views have gaps, or their axes in another order in memory."""
        match self.number(3):
            case 0:
                wide = values.new_zeros((*values.shape, 2))
                wide[..., 0] = values
                return wide[..., 0]
            case 1:
                return values.movedim(0, -1).contiguous().movedim(-1, 0)
            case _:
                return values
