"""An expression -> its parts as machines compute them: with 32 bits, and with quotients that C and Triton round alike.

Both round the quotient of a negative number up, towards zero. A division that is marked `nonneg` is printed as theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparsec.ir.expr import nodes as x

Tree = x.Expr | x.Bool


def integers_in(tree: Tree) -> Iterator[x.Expr]:
    """The integer expressions within a tree."""
    match tree:
        case x.Truth() | x.Listed() | x.Int() | x.Var():
            return
        case x.Not(a):
            yield from integers_in(a)
        case x.And(a, b) | x.Or(a, b) | x.Less(a, b):
            yield from integers_in(a)
            yield from integers_in(b)
        case x.Select(c, a, b):
            yield tree
            for part in (c, a, b):
                yield from integers_in(part)
        case _:
            yield tree
            yield from integers_in(tree.left)
            yield from integers_in(tree.right)


def unsigned_in(tree: Tree, chosen: tuple[x.Bool, ...] = ()) -> Iterator[tuple[tuple[x.Bool, ...], x.Expr]]:
    """What the divisions marked `nonneg` divide, each with the choices by which its value is used."""
    match tree:
        case x.Truth() | x.Listed() | x.Int() | x.Var():
            return
        case x.Not(a):
            yield from unsigned_in(a, chosen)
        case x.Select(c, a, b):
            yield from unsigned_in(c, chosen)
            yield from unsigned_in(a, (*chosen, c))
            yield from unsigned_in(b, (*chosen, x.Not(c)))
        case _:
            if isinstance(tree, x.FloorDiv | x.Mod) and tree.nonneg:
                yield chosen, tree.left
            yield from unsigned_in(tree.left, chosen)
            yield from unsigned_in(tree.right, chosen)


def wide(tree: Tree, values: Mapping[str, int]) -> bool:
    """Whether a part leaves int32."""
    return any(not -(2**31) <= x.evaluate(node, values) < 2**31 for node in integers_in(tree))


def negative(tree: Tree, values: Mapping[str, int]) -> bool:
    """Whether a division marked `nonneg` whose value is used divides a negative number."""
    used = (node for chosen, node in unsigned_in(tree) if all(x.holds(choice, values) for choice in chosen))
    return any(x.evaluate(node, values) < 0 for node in used)
