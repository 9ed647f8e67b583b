"""A tile program in its setting -> what is claimed of it, as questions.

Invariant: all that the program's docstring promises is asked.
"""

from __future__ import annotations

from collections.abc import Iterator

from sparsec.ir import expr as x
from sparsec.ir.tiles import Piece
from sparsec.testing.proof.cuts import Cut, Impossible, bounded, covered
from sparsec.testing.proof.linear import Condition, Linear, every, never, some
from sparsec.testing.proof.questions import Failure, Question
from sparsec.testing.proof.settings import Setting
from sparsec.testing.proof.stated import Scope
from sparsec.testing.proof.visiting import certain, possible


def tile_questions(at: Setting) -> tuple[Question, ...]:
    """The claims of `ir.tiles.TileProgram`, beside its predicate's meaning."""
    cut = Cut(at)
    return (
        Question("coverage", lambda: _uncovered(at), lambda impossible: covered(cut, _live(at), impossible)),
        Question("disjointness", lambda: _twice(at), lambda impossible: _shown_apart(cut, impossible)),
        Question("fullness", lambda: _not_full(at)),
        Question("bounds", lambda: _outside(at), lambda impossible: bounded(cut, _vain(at), impossible)),
        Question("counts", lambda: _negative(at)),
        Question("int32", lambda: _wide(at)),
    )


def _pieces(at: Setting) -> tuple[Piece, ...]:
    return (*at.program.full, *at.program.masked)


def _alternatives(test: x.Bool) -> tuple[x.Bool, ...]:
    match test:
        case x.Or(left, right):
            return (*_alternatives(left), *_alternatives(right))
    return (test,)


def _uncovered(at: Setting) -> Failure:
    """A live pair lies in a tile that no piece visits."""
    unvisited = (never(certain(at, piece).visits) for piece in _pieces(at))
    return Failure((at.assumed, at.present, *unvisited), _live(at))


def _live(at: Setting) -> tuple[Condition, ...]:
    return tuple(map(at.scope.truth, _alternatives(at.program.live)))


def _shown_apart(cut: Cut, impossible: Impossible) -> bool:
    """Whether no tile is visited twice whatever the ends of ranges are, in order."""
    if not cut.named:
        return False
    twice = _twice(cut.free)
    return impossible(Failure((*twice.given, *cut.facts(impossible)), twice.cases))


def _twice(at: Setting) -> Failure:
    """Two pieces visit the tile, or one does at two trips."""
    found: list[Condition] = []
    earlier: list[Condition] = []
    for piece in _pieces(at):
        trip = possible(at, piece)
        found.append(every((trip.visits, some(earlier))))
        earlier.append(trip.visits)
        if not piece.contiguous:
            again = possible(at, piece)
            parts = [trip.visits, again.visits, never(at.space.equal(trip.number, again.number))]
            if piece.listed is not None:  # a table lists no block twice
                per_block = at.program.lists[piece.listed].block // at.width
                parts.append(at.space.equal(*(at.space.divided(each.number, per_block)[0] for each in (trip, again))))
            found.append(every(parts))
    return Failure((at.assumed,), tuple(found))


def _not_full(at: Setting) -> Failure:
    """A pair of a tile that a full piece visits is not live."""
    dead = never(every((at.present, at.live)))
    return Failure((at.assumed, dead), tuple(possible(at, piece).visits for piece in at.program.full))


def _negative(at: Setting) -> Failure:
    """A piece's count is negative."""
    counts = (at.scope.value(piece.count) for piece in _pieces(at))
    return Failure((at.assumed,), tuple(at.space.less(count, Linear(0)) for count in counts))


def _outside(at: Setting) -> Failure:
    """A visited tile has no column that exists."""
    return Failure((at.assumed, _vain(at)), tuple(possible(at, piece).visits for piece in _pieces(at)))


def _vain(at: Setting) -> Condition:
    """The tile has no column that exists."""
    first = at.tile * at.width
    return never(every((at.space.less(first, at.end), at.space.less(at.begin, first.plus(at.width)))))


def _wide(at: Setting) -> Failure:
    """An expression or a part of one leaves int32, for rows and columns of the tile, those past the end included."""
    found: list[Condition] = []
    seen: set[x.Expr] = set()

    def check(scope: Scope, tree: x.Expr | x.Bool, reached: Condition) -> None:
        for node in integers_in(tree):
            if node not in seen:
                value = scope.value(node)
                if not _fits(at, value):
                    inside = at.space.within(value, Linear(-(2**31)), Linear(2**31))
                    found.append(every((reached, never(inside))))
                seen.add(node)

    for let in at.program.lets:
        check(at.scope, let.value, every(()))
    for piece in _pieces(at):
        check(at.scope, piece.count, every(()))
        if piece.listed is None:
            trip = possible(at, piece)
            scope = at.scope.having(n=trip.number, tile=at.tile)
            check(scope, piece.tile, trip.visits)
            check(scope, piece.when, trip.visits)
            seen.clear()
    check(at.scope, at.program.live, at.space.within(at.tile * at.width, Linear(0), at.end))
    return Failure((at.assumed,), tuple(found))


def _fits(at: Setting, value: Linear) -> bool:
    low, high = at.space.range_of(value)
    return low >= -(2**31) and high < 2**31


def integers_in(tree: x.Expr | x.Bool) -> Iterator[x.Expr]:
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
