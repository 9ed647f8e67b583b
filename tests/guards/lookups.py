"""The tests of inputs that a plan has -> lookups of any content, sizes and heads, placed.

Invariant: shapes are those that `backends.base.Lookup` allows; numbers are any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.ir.bands.band import Asks, InputTest
from sparsec.plan.launch import LaunchPlan


def any_lookups(
    plan: LaunchPlan, batch: int, n_q: int, n_k: int, seed: int, place: Callable[[Tensor], Tensor]
) -> tuple[Lookup, ...]:
    """Half of the numbers are small, the others anything that an int32, or in lists an int64, holds."""
    generator = torch.Generator().manual_seed(seed)
    first = (1, batch)[seed % 2], (1, plan.kv_heads, plan.heads)[seed % 3]

    def numbers(*shape: int, dtype: torch.dtype = torch.int32, most: int = n_k) -> Tensor:
        small = torch.randint(-3, most + 3, shape, generator=generator)
        least = torch.iinfo(torch.int64 if dtype == torch.int64 else torch.int32).min
        large = torch.randint(least, -1 - least, shape, generator=generator)
        chosen = torch.where(torch.rand(shape, generator=generator) < 0.5, small, large)
        return place((chosen & 1 if dtype == torch.uint8 else chosen).to(dtype))

    def lookup(test: InputTest) -> Lookup:
        match test.asks:
            case Asks.MARKED | Asks.COLUMN | Asks.SLASH | Asks.SLASH_TILE:
                counts = numbers(*first, (1, n_k, n_q + n_k)[seed % 3] + 1)
                ordered = numbers(*first, (7, 0, 9)[seed % 3]) if test in plan.columns else None
                return Lookup(test, counts, -(seed * n_k) // 2, ordered=ordered)
            case Asks.ROW:
                shape = *first, n_q, (7, 0, 9)[seed % 3]
                dtype = torch.int64 if seed % 2 else torch.int32
                return Lookup(test, numbers(*shape, dtype=dtype, most=n_k // test.width), ordered=numbers(*shape))
            case Asks.CELL:
                return Lookup(test, numbers(*first, 1 + seed % 4, 1 + seed % 3, dtype=torch.uint8))
            case Asks.LABEL:
                return Lookup(test, numbers(*first, n_q), keys=numbers(1, 1, n_k))
            case Asks.ANCESTOR:
                n = min(n_k, 5 * (seed % 3))
                return Lookup(test, numbers(first[0], 1, n, n, dtype=torch.uint8))
            case Asks.KEY_BELOW | Asks.QUERY_BELOW | Asks.NEAR:
                return Lookup(test, numbers(*first))
            case _:
                assert_never(test.asks)

    return tuple(map(lookup, plan.inputs))
