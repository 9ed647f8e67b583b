"""Values for which a claim about a tile program is said to fail -> whether it does, by the interpreter; and a picture.

Invariant: nothing here reads what the solver was asked; the interpreter of `ir.tiles.interpreter` decides alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sparsec.ir.bands.band import InputTest
from sparsec.ir.expr.evaluate import evaluate, holds
from sparsec.ir.expr.nodes import Extent, Picked, Tree
from sparsec.ir.tiles.interpreter import Positions, Visit, anything, draws, transposed_visits, visits
from sparsec.ir.tiles.program import ListSpec, Segment, TileProgram
from sparsec.prove import meaning
from sparsec.prove.linear import NO, YES, Condition, Linear, Space
from sparsec.prove.machine_integers import negative, wide
from sparsec.prove.supposed import Supposed, TiledPair
from sparsec.prove.tile_obligations import entries, first_column, gathered
from sparsec.prove.tile_setting import BoundProgram, ProgramKind
from sparsec.sema.model import Random, Term

ITERATIONS = 1 << 20
"""A counterexample with more iterations than this is not walked."""
_ROWS, _COLUMNS = 12, 48

Values = Mapping[str, int]


class Unwalkable(Exception):
    """The loops of a counterexample take too long to walk, or read past their tables: the message completes "is
    visited"."""


def tiled_pair(bound: BoundProgram, values: Values) -> TiledPair:
    """The pair with its tile, as far as that has rows and columns."""
    size, tile, (begin, end) = _size(bound), values["tile"], _columns(bound, values)
    columns = max(begin, tile * size), min(end, (tile + 1) * size)
    program, i, j = bound.program, values["i"], values["j"]
    if bound.kind is ProgramKind.TRANSPOSED:
        first = j // program.key_tile * program.key_tile
        keys = max(first, values["j0"]), min(first + program.key_tile, values["j1"] + 1)
        return TiledPair(i, j, values["nk"], (values["base"] + columns[0], values["base"] + columns[1]), keys)
    return TiledPair(i, j, values["nk"], (values["i0"], values["i1"] + 1), columns)


def fails(bound: BoundProgram, claim: str, values: Values, term: Term, supposed: Supposed) -> bool:
    """Whether the claim fails for these values of the program's inputs and constants, and these contents of a call's
    inputs. Raises Unwalkable."""
    tile, size = values["tile"], _size(bound)
    match claim:
        case "counts":
            scope = _lets(bound.program, values)
            segments = (*bound.program.full, *bound.program.masked)
            return any(evaluate(p.count, scope) < 0 or _past_its_table(bound, p, scope) for p in segments)
        case "meaning":
            return any(_held(bound, values, supposed)) != is_meant(values, term, supposed)
        case "gathers":
            return _present(bound, values) and sum(_held(bound, values, supposed)) > 1
        case "reach":
            return _present(bound, values) and _out_of_reach(bound, values, supposed)
        case "int32":
            return any(wide(*each) for each in _computed(bound, values))
        case "signs":
            return any(negative(*each) for each in _computed(bound, values))
    found = _visits(bound, values, supposed)
    match claim:
        case "coverage":
            return (
                _present(bound, values)
                and _held(bound, values, supposed)[0]
                and all(v.tile != _tile_of(bound, values) for v in found)
            )
        case "disjointness":
            return sum(visit.tile == tile for visit in found) > 1
        case "fullness":
            visited = any(visit.tile == _tile_of(bound, values) and visit.full for visit in found)
            return visited and not (_present(bound, values) and _held(bound, values, supposed)[0])
        case "bounds":
            begin, end = _columns(bound, values)
            return any(not (v.tile * size < end and begin < (v.tile + 1) * size) for v in found if v.tile == tile)
    raise AssertionError(f"no claim is called {claim}")


def picture(bound: BoundProgram, values: Values, supposed: Supposed) -> str:
    """The predicate around the pair: `#` seen, `.` not, `X` and `x` the pair itself; and how its tile is visited."""
    transposed = bound.kind is ProgramKind.TRANSPOSED
    row, column, begin, end = ("j", "i", "j0", "j1") if transposed else ("i", "j", "i0", "i1")
    top = max(values[begin], min(values[row] - _ROWS // 2, values[end] - _ROWS + 1))
    left = values[column] - _COLUMNS // 2
    left = left if transposed else max(0, left)
    lines = []
    for at in range(top, min(values[end], top + _ROWS - 1) + 1):
        marks = ""
        for across in range(left, left + _COLUMNS):
            pair = {**values, row: at, column: across}
            live = _present(bound, pair) and any(_held(bound, pair, supposed))
            here = at == values[row] and across == values[column]
            marks += ("X" if live else "x") if here else "#" if live else "."
        lines.append(f"{row} = {at:>6}  {marks}")
    try:
        how = [("full" if v.full else "masked") for v in _visits(bound, values, supposed) if v.tile == values["tile"]]
    except Unwalkable as error:
        how = [str(error)]
    kind, span = "query" if transposed else "key", f"{left} .. {left + _COLUMNS - 1}"
    lines.append(f"{column} = {span}; {kind} tile {values['tile']} is visited: {', '.join(how) or 'never'}")
    return "\n".join(lines)


def _size(bound: BoundProgram) -> int:
    return bound.program.query_tile if bound.kind is ProgramKind.TRANSPOSED else bound.program.key_tile


def _columns(bound: BoundProgram, values: Values) -> tuple[int, int]:
    return (0, values["nk"]) if bound.kind is ProgramKind.FORWARD else (values["begin"], values["end"])


def _column(bound: BoundProgram, values: Values) -> int:
    return values["i"] - values["base"] if bound.kind is ProgramKind.TRANSPOSED else values["j"]


def _tile_of(bound: BoundProgram, values: Values) -> int:
    return _column(bound, values) // _size(bound)


def _present(bound: BoundProgram, values: Values) -> bool:
    begin, end = _columns(bound, values)
    return begin <= _column(bound, values) < end


def _drawn(bound: BoundProgram, values: Values) -> dict[int, bool]:
    """Whether the pair's blocks are drawn, for each list."""
    return {
        n: values["j"] // spec.block in draws(spec, values[spec.lane_row], values["i"] // spec.block)
        for n, spec in enumerate(bound.program.lists)
    }


def _held(bound: BoundProgram, values: Values, supposed: Supposed) -> tuple[bool, ...]:
    """Whether the tiles hold the pair, and whether each gather does."""
    answers: dict[Any, bool] = {**_drawn(bound, values)}
    for n, test in enumerate(bound.program.inputs):
        answers[Picked(n, Extent.PAIR)] = supposed.passes(test, values["i"], values["j"], values["nk"])
    conditions = bound.program.live, *gathered(bound.program)
    return tuple(holds(condition, values, answers) for condition in conditions)


def _out_of_reach(bound: BoundProgram, values: Values, supposed: Supposed) -> bool:
    """Whether a gather holds the pair, though it lies outside the gather's reach."""
    scope, held = _lets(bound.program, values), _held(bound, values, supposed)[1:]
    spot = values["tile"] if bound.kind is ProgramKind.TRANSPOSED else values["j"]
    reaches = (gather.reach for gather in bound.program.gathers)
    return any(
        mine and reach is not None and not evaluate(reach.start, scope) <= spot < evaluate(reach.stop, scope)
        for mine, reach in zip(held, reaches, strict=True)
    )


def is_meant(values: Values, term: Term, supposed: Supposed) -> bool:
    """Whether the term has the pair (i, j) of nk keys."""

    def drawn(random: Random) -> Condition:
        spec = ListSpec(random.k, supposed.block, ((random.seed, random.lane),), "")
        return YES if values["j"] // spec.block in draws(spec, 0, values["i"] // spec.block) else NO

    def asked(ordinal: int, asks: str) -> Condition:
        return YES if supposed.says(ordinal, asks, values["i"], values["j"], values["nk"]) else NO

    i, j, n_keys = (Linear(values[name]) for name in ("i", "j", "nk"))
    at = meaning.Pair(Space(), i, j, n_keys, supposed.block, drawn, asked)
    return meaning.holds(term, at) is YES


def _past_its_table(bound: BoundProgram, segment: Segment, values: Values) -> bool:
    """Whether a listed loop has more iterations than its list has entries."""
    if segment.listed is None:
        return False
    return evaluate(segment.count, values) > entries(bound.program, segment.listed, _size(bound))


def _lets(program: TileProgram, values: Values) -> dict[str, int]:
    scope = dict(values)
    for let in program.lets:
        scope[let.name] = evaluate(let.value, scope)
    return scope


def _visits(bound: BoundProgram, values: Values, supposed: Supposed) -> tuple[Visit, ...]:
    program, scope = bound.program, _lets(bound.program, values)
    segments = (*program.full, *program.masked)
    if sum(evaluate(segment.count, scope) for segment in segments) > ITERATIONS:
        raise Unwalkable("for too many iterations to tell")
    if any(_past_its_table(bound, segment, scope) for segment in segments):
        raise Unwalkable("by what lies past a table's end")
    transposed = bound.kind is ProgramKind.TRANSPOSED

    def asked(test: InputTest, extent: Extent, queries: Positions, keys: Positions) -> bool:
        """No claim is about other tiles than that of the pair, so any answer will do there."""
        first = queries[0] - values["base"] if transposed else keys[0]
        if first // _size(bound) != values["tile"]:
            return anything(test, extent, queries, keys)
        return supposed.of_tile(test, extent, queries, keys, values["nk"])

    if transposed:
        queries = values["base"] + values["begin"], values["base"] + values["end"]
        return transposed_visits(program, values, (values["j0"], values["j1"] + 1), values["nk"], queries, asked)
    document = (values["begin"], values["end"]) if bound.kind is ProgramKind.IN_DOCUMENT else None
    return visits(program, values, (values["i0"], values["i1"] + 1), values["nk"], document, asked)


def _computed(bound: BoundProgram, values: Values) -> Iterator[tuple[Tree, Values]]:
    """What the kernel computes for the pair and for every iteration, and the values of the names."""
    program, scope = bound.program, _lets(bound.program, values)
    for let in program.lets:
        yield let.value, scope
    for segment in (*program.full, *program.masked):
        yield segment.count, scope
        if evaluate(segment.count, scope) > ITERATIONS:
            raise Unwalkable("for too many iterations to tell")
        for n in range(evaluate(segment.count, scope)):
            iteration = scope | {"n": n, **_entry(bound, segment, n, scope)}
            iteration["tile"] = evaluate(segment.tile, iteration)
            for tree in (segment.tile, first_column(_size(bound)), segment.when):
                yield tree, iteration
    yield program.live, scope


def _entry(bound: BoundProgram, segment: Segment, n: int, values: Values) -> dict[str, int]:
    """What an iteration reads from the table of draws, if there is anything."""
    if segment.listed is None:
        return {}
    spec = bound.program.lists[segment.listed]
    drawn = draws(spec, values[spec.lane_row], values["i0"] // spec.block)
    per_block = spec.block // _size(bound)
    return {"entry": drawn[n // per_block] if n // per_block < len(drawn) else -1}
