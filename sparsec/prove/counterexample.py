"""Values for which a claim about a tile program is said to fail -> whether it does, by the interpreter; and a picture.

Invariant: nothing here reads what the solver was asked; the interpreter of `ir.tiles.interpreter` decides alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparsec.ir.expr.nodes import evaluate, holds
from sparsec.ir.tiles.interpreter import Visit, draws, transposed_visits, visits
from sparsec.ir.tiles.program import ListSpec, Piece, TileProgram
from sparsec.prove import meaning
from sparsec.prove.claims import entries, first_column
from sparsec.prove.integers import Tree, negative, wide
from sparsec.prove.linear import NO, YES, Condition, Linear, Space
from sparsec.prove.settings import Case, Kind
from sparsec.sema.model import Random, Term

TRIPS = 1 << 20
"""A counterexample with more trips than this is not walked."""
_ROWS, _COLUMNS = 12, 48

Values = Mapping[str, int]


class Unwalkable(Exception):
    """The loops of a counterexample take too long to walk, or read past their tables: the message completes "is
    visited"."""


def fails(case: Case, claim: str, values: Values, term: Term, block: int) -> bool:
    """Whether the claim fails for these values of the program's inputs and constants. Raises Unwalkable."""
    tile, size = values["tile"], _size(case)
    match claim:
        case "counts":
            scope = _lets(case.program, values)
            pieces = (*case.program.full, *case.program.masked)
            return any(evaluate(p.count, scope) < 0 or _past_its_table(case, p, scope) for p in pieces)
        case "meaning":
            return _is_live(case, values) != is_meant(values, term, block)
        case "int32":
            return any(wide(*each) for each in _computed(case, values))
        case "signs":
            return any(negative(*each) for each in _computed(case, values))
    found = _visits(case, values)
    match claim:
        case "coverage":
            return (
                _present(case, values)
                and _is_live(case, values)
                and all(v.tile != _tile_of(case, values) for v in found)
            )
        case "disjointness":
            return sum(visit.tile == tile for visit in found) > 1
        case "fullness":
            visited = any(visit.tile == _tile_of(case, values) and visit.full for visit in found)
            return visited and not (_present(case, values) and _is_live(case, values))
        case "bounds":
            begin, end = _columns(case, values)
            return any(not (v.tile * size < end and begin < (v.tile + 1) * size) for v in found if v.tile == tile)
    raise AssertionError(f"no claim is called {claim}")


def picture(case: Case, values: Values) -> str:
    """The predicate around the pair: `#` live, `.` not, `X` and `x` the pair itself; and how its tile is visited."""
    transposed = case.kind is Kind.TRANSPOSED
    row, column, begin, end = ("j", "i", "j0", "j1") if transposed else ("i", "j", "i0", "i1")
    top = max(values[begin], min(values[row] - _ROWS // 2, values[end] - _ROWS + 1))
    left = values[column] - _COLUMNS // 2
    left = left if transposed else max(0, left)
    lines = []
    for at in range(top, min(values[end], top + _ROWS - 1) + 1):
        marks = ""
        for across in range(left, left + _COLUMNS):
            pair = {**values, row: at, column: across}
            live = _present(case, pair) and _is_live(case, pair)
            here = at == values[row] and across == values[column]
            marks += ("X" if live else "x") if here else "#" if live else "."
        lines.append(f"{row} = {at:>6}  {marks}")
    try:
        how = [("full" if v.full else "masked") for v in _visits(case, values) if v.tile == values["tile"]]
    except Unwalkable as error:
        how = [str(error)]
    kind, span = "query" if transposed else "key", f"{left} .. {left + _COLUMNS - 1}"
    lines.append(f"{column} = {span}; {kind} tile {values['tile']} is visited: {', '.join(how) or 'never'}")
    return "\n".join(lines)


def _size(case: Case) -> int:
    return case.program.query_tile if case.kind is Kind.TRANSPOSED else case.program.key_tile


def _columns(case: Case, values: Values) -> tuple[int, int]:
    return (0, values["nk"]) if case.kind is Kind.FORWARD else (values["begin"], values["end"])


def _column(case: Case, values: Values) -> int:
    return values["i"] - values["base"] if case.kind is Kind.TRANSPOSED else values["j"]


def _tile_of(case: Case, values: Values) -> int:
    return _column(case, values) // _size(case)


def _present(case: Case, values: Values) -> bool:
    begin, end = _columns(case, values)
    return begin <= _column(case, values) < end


def _drawn(case: Case, values: Values) -> dict[int, bool]:
    """Whether the pair's blocks are drawn, for each list."""
    return {
        n: values["j"] // spec.block in draws(spec, values[spec.lane_row], values["i"] // spec.block)
        for n, spec in enumerate(case.program.lists)
    }


def _is_live(case: Case, values: Values) -> bool:
    return holds(case.program.live, values, _drawn(case, values))


def is_meant(values: Values, term: Term, block: int) -> bool:
    """Whether the term has the pair (i, j) of nk keys."""

    def drawn(random: Random) -> Condition:
        spec = ListSpec(random.k, block, ((random.seed, random.lane),), "")
        return YES if values["j"] // block in draws(spec, 0, values["i"] // block) else NO

    i, j, n_keys = (Linear(values[name]) for name in ("i", "j", "nk"))
    at = meaning.Pair(Space(), i, j, n_keys, block, drawn)
    return meaning.holds(term, at) is YES


def _past_its_table(case: Case, piece: Piece, values: Values) -> bool:
    """Whether a listed loop has more trips than its list has entries."""
    if piece.listed is None:
        return False
    return evaluate(piece.count, values) > entries(case.program, piece.listed, _size(case))


def _lets(program: TileProgram, values: Values) -> dict[str, int]:
    scope = dict(values)
    for let in program.lets:
        scope[let.name] = evaluate(let.value, scope)
    return scope


def _visits(case: Case, values: Values) -> tuple[Visit, ...]:
    program, scope = case.program, _lets(case.program, values)
    pieces = (*program.full, *program.masked)
    if sum(evaluate(piece.count, scope) for piece in pieces) > TRIPS:
        raise Unwalkable("for too many trips to tell")
    if any(_past_its_table(case, piece, scope) for piece in pieces):
        raise Unwalkable("by what lies past a table's end")
    if case.kind is Kind.TRANSPOSED:
        queries = values["base"] + values["begin"], values["base"] + values["end"]
        return transposed_visits(program, values, (values["j0"], values["j1"] + 1), values["nk"], queries)
    document = (values["begin"], values["end"]) if case.kind is Kind.IN_DOCUMENT else None
    return visits(program, values, (values["i0"], values["i1"] + 1), values["nk"], document)


def _computed(case: Case, values: Values) -> Iterator[tuple[Tree, Values]]:
    """What the kernel computes for the pair and for every trip, and the values of the names."""
    program, scope = case.program, _lets(case.program, values)
    for let in program.lets:
        yield let.value, scope
    for piece in (*program.full, *program.masked):
        yield piece.count, scope
        if evaluate(piece.count, scope) > TRIPS:
            raise Unwalkable("for too many trips to tell")
        for n in range(evaluate(piece.count, scope)):
            trip = scope | {"n": n, **_entry(case, piece, n, scope)}
            trip["tile"] = evaluate(piece.tile, trip)
            for tree in (piece.tile, first_column(_size(case)), piece.when):
                yield tree, trip
    yield program.live, scope


def _entry(case: Case, piece: Piece, n: int, values: Values) -> dict[str, int]:
    """What a trip reads from the table of draws, if there is anything."""
    if piece.listed is None:
        return {}
    spec = case.program.lists[piece.listed]
    drawn = draws(spec, values[spec.lane_row], values["i0"] // spec.block)
    per_block = spec.block // _size(case)
    return {"entry": drawn[n // per_block] if n // per_block < len(drawn) else -1}
