"""Walks over expressions: the parts of a node, all nodes of a tree, and what they name.

Invariant: every walk over all parts goes through `children`, which alone knows what a node is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar, assert_never

from sparsec.ir.expr import nodes as x

T = TypeVar("T")


def children(node: x.Tree) -> tuple[x.Tree, ...]:
    """The expressions and conditions directly inside `node`, in their order."""
    match node:
        case x.Int() | x.Var() | x.Truth() | x.Listed() | x.Picked():
            return ()
        case x.Not(operand):
            return (operand,)
        case x.Add(a, b) | x.Sub(a, b) | x.Mul(a, b) | x.FloorDiv(a, b) | x.Mod(a, b) | x.Min(a, b) | x.Max(a, b):
            return (a, b)
        case x.Less(a, b) | x.And(a, b) | x.Or(a, b):
            return (a, b)
        case x.Select(condition, a, b):
            return (condition, a, b)
        case _:
            assert_never(node)


def fold(tree: x.Tree, of: Callable[[x.Tree, tuple[T, ...]], T]) -> T:
    """What `of` makes of the root and of what it has made of each part, from the leaves up."""
    return of(tree, tuple(fold(part, of) for part in children(tree)))


def nodes_in(tree: x.Tree) -> Iterator[x.Tree]:
    """Every node of a tree, each before what is inside it."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(children(node)))


def names_in(tree: x.Tree) -> frozenset[str]:
    """The names of the variables that an expression or condition reads."""
    return frozenset(node.name for node in nodes_in(tree) if isinstance(node, x.Var))


def lists_in(tree: x.Tree) -> frozenset[int]:
    """The ordinals of the lists that an expression or condition tests."""
    return frozenset(node.ordinal for node in nodes_in(tree) if isinstance(node, x.Listed))


def picks_in(tree: x.Tree) -> frozenset[x.Picked]:
    """What an expression or condition asks inputs."""
    return frozenset(node for node in nodes_in(tree) if isinstance(node, x.Picked))
