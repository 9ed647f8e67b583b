"""`ir.expr` over broadcasting int64 and bool tensors: how the `torch` target tests many pairs at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sparsec.ir import expr as x


def value(expr: x.Expr, values: Mapping[str, int | Tensor], listed: Mapping[int, Tensor]) -> int | Tensor:
    """`ir.expr.evaluate`."""

    def of(e: x.Expr) -> int | Tensor:
        return value(e, values, listed)

    match expr:
        case x.Int(number):
            return number
        case x.Var(name):
            return values[name]
        case x.Add(a, b):
            return of(a) + of(b)
        case x.Sub(a, b):
            return of(a) - of(b)
        case x.Mul(a, b):
            return of(a) * of(b)
        case x.FloorDiv(a, b, _):
            return of(a) // of(b)
        case x.Mod(a, b, _):
            return of(a) % of(b)
        case x.Min(a, b) | x.Max(a, b):
            left, right = torch.as_tensor(of(a)), torch.as_tensor(of(b))
            return torch.minimum(left, right) if isinstance(expr, x.Min) else torch.maximum(left, right)
        case x.Select(c, a, b):
            return torch.where(torch.as_tensor(truth(c, values, listed)), of(a), of(b))


def truth(test: x.Bool, values: Mapping[str, int | Tensor], listed: Mapping[int, Tensor]) -> bool | Tensor:
    """`ir.expr.holds`."""
    match test:
        case x.Truth(known):
            return known
        case x.Less(a, b):
            return value(a, values, listed) < value(b, values, listed)
        case x.And(a, b):
            return truth(a, values, listed) & truth(b, values, listed)
        case x.Or(a, b):
            return truth(a, values, listed) | truth(b, values, listed)
        case x.Not(a):
            return torch.logical_not(torch.as_tensor(truth(a, values, listed)))
        case x.Listed(ordinal):
            return listed[ordinal]
