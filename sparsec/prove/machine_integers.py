"""An expression -> its parts as machines compute them: with 32 bits, and with quotients that C and Triton round alike.

Both round the quotient of a negative number up, towards zero. A division that is marked `nonneg` is printed as theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparsec.ir.expr import nodes as x
from sparsec.ir.expr.evaluate import evaluate, holds
from sparsec.ir.expr.fold import children, nodes_in


def integers_in(tree: x.Tree) -> Iterator[x.Expr]:
    """The integer expressions within a tree that a machine computes."""
    for node in nodes_in(tree):
        match node:
            case x.Int() | x.Var() | x.Truth() | x.Less() | x.And() | x.Or() | x.Not() | x.Listed() | x.Picked():
                pass
            case _:
                yield node


def unsigned_in(tree: x.Tree, chosen: tuple[x.Bool, ...] = ()) -> Iterator[tuple[tuple[x.Bool, ...], x.Expr]]:
    """What the divisions marked `nonneg` divide, each with the choices by which its value is used."""
    match tree:
        case x.Select(c, a, b):
            yield from unsigned_in(c, chosen)
            yield from unsigned_in(a, (*chosen, c))
            yield from unsigned_in(b, (*chosen, x.Not(c)))
        case _:
            if isinstance(tree, x.FloorDiv | x.Mod) and tree.nonneg:
                yield chosen, tree.left
            for part in children(tree):
                yield from unsigned_in(part, chosen)


def wide(tree: x.Tree, values: Mapping[str, int]) -> bool:
    """Whether a part leaves int32."""
    return any(not -(2**31) <= evaluate(node, values) < 2**31 for node in integers_in(tree))


def negative(tree: x.Tree, values: Mapping[str, int]) -> bool:
    """Whether a division marked `nonneg` whose value is used divides a negative number."""
    used = (node for chosen, node in unsigned_in(tree) if all(holds(choice, values) for choice in chosen))
    return any(evaluate(node, values) < 0 for node in used)
