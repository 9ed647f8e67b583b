"""The trips of a loop through strided tiles -> the tiles between which they run, where that is shown.

How many tiles of a residue lie before a tile takes divisions to say, and a program says it twice for each of its loops.
What follows from them is shown once, whatever the numbers are: a trip whose tile lies in the span is one of the loop's,
and no other is. Invariant: a span is only ever guessed, from the names that a count reads, and kept where it is proved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sparsec.ir.expr import nodes as x
from sparsec.ir.expr.nodes import names_in
from sparsec.ir.tiles.program import Piece
from sparsec.prove.linear import Condition, every, never, some
from sparsec.prove.settings import Setting, Span, freed
from sparsec.prove.solve import Solver
from sparsec.prove.visiting import in_loop, in_span, possible

_SECONDS, _ATTEMPTS = 1.0, 4


def with_spans(at: Setting, solver: Solver) -> Setting:
    """The setting, with the spans of the pieces for which the solver shows them."""
    guessed = ((piece, _guess(at, piece)) for piece in (*at.program.full, *at.program.masked))
    spans = {
        piece: guess[0]
        for piece, guess in guessed
        if guess and all(solver.ask(wrong, _SECONDS, _ATTEMPTS) is False for wrong in _wrong(at, piece, *guess))
    }
    return replace(at, spans=spans)


def _guess(at: Setting, piece: Piece) -> tuple[Span, frozenset[str]] | None:
    """The name that only the tiles before the start read, the one that only those before the stop read; all names."""
    if piece.contiguous or piece.listed is not None:
        return None
    match _meant(at, piece.count):
        case x.Sub(before_stop, before_start):
            stop, start = names_in(before_stop), names_in(_meant(at, before_start))
            if len(start - stop) == len(stop - start) == 1:
                return (min(start - stop), min(stop - start)), start | stop
    return None


def _meant(at: Setting, expr: x.Expr) -> x.Expr:
    """What a name stands for."""
    return at.scope.lets.get(expr.name, expr) if isinstance(expr, x.Var) else expr


def _wrong(at: Setting, piece: Piece, span: Span, read: frozenset[str]) -> Iterator[tuple[Condition, ...]]:
    """That the span ends before it starts, and that, whatever numbers the names stand for, a trip whose tile lies in
    the span is none of the loop's, or one whose tile lies outside is."""
    yield at.assumed, _ends_early(at, span)
    free = freed(at, read)
    trip = possible(free, piece).number
    here = free.space.equal(free.scope.having(n=trip).value(piece.tile), free.tile)
    inside, looped = in_span(free, span), in_loop(free, piece, trip)
    differ = some((every((inside, never(looped))), every((looped, never(inside)))))
    yield never(_ends_early(free, span)), here, differ


def _ends_early(at: Setting, span: Span) -> Condition:
    return at.space.less(at.scope.name(span[1]), at.scope.name(span[0]))
