"""Runs a tile program: the interpreter that gives it its meaning; pictures, counts and the torch target use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sparsec.ir.bands.band import InputTest
from sparsec.ir.bands.draws import drawn_blocks
from sparsec.ir.expr.evaluate import Answers, evaluate, holds
from sparsec.ir.expr.nodes import TRUE, Extent, Picked
from sparsec.ir.tiles.program import ListSpec, Segment, TileProgram


@dataclass(frozen=True, slots=True)
class Visit:
    tile: int
    full: bool


Positions = tuple[int, int]
"""From the first on, up to the second."""
Asked = Callable[[InputTest, Extent, Positions, Positions], bool]
"""Whether SOME pair of queries and keys passes a test, or EVERY one."""


def anything(test: InputTest, scope: Extent, queries: Positions, keys: Positions) -> bool:
    """What may be said of inputs that nobody has seen."""
    return scope is Extent.SOME


def visits(
    program: TileProgram,
    constants: Mapping[str, int],
    rows: tuple[int, int],
    n_keys: int,
    document: tuple[int, int] | None = None,
    asked: Asked = anything,
) -> tuple[Visit, ...]:
    """The key tiles visited for rows[0] <= i < rows[1] (of one query tile), in the order of the kernel's loops.

    `document`: its first key and one past its last, for programs made `in_document`. `asked`: what the inputs say.
    """
    values = {**constants, "i0": rows[0], "i1": rows[1] - 1, "nk": n_keys}
    if document is not None:
        values |= {"begin": document[0], "end": document[1]}
    drawn = [draws(spec, values[spec.lane_row], rows[0] // spec.block) for spec in program.lists]

    def answers(tile: int) -> Answers:
        first = tile * program.key_tile
        keys = max(first, values.get("begin", 0)), min(first + program.key_tile, values.get("end", n_keys))
        return {**listed_at(program, drawn, tile), **_picked(program, asked, rows, keys)}

    return tuple(_visits(program, values, drawn, answers))


def transposed_visits(
    program: TileProgram,
    constants: Mapping[str, int],
    keys: tuple[int, int],
    n_keys: int,
    queries: tuple[int, int],
    asked: Asked = anything,
) -> tuple[Visit, ...]:
    """The query tiles visited for keys[0] <= j < keys[1] (of one key tile), for queries[0] <= i < queries[1].

    Tiles count from the query tile that holds queries[0].
    """
    base = queries[0] // program.query_tile * program.query_tile
    values = {**constants, "j0": keys[0], "j1": keys[1] - 1, "nk": n_keys}
    values |= {"base": base, "begin": queries[0] - base, "end": queries[1] - base}

    def answers(tile: int) -> Answers:
        first = base + tile * program.query_tile
        listed = {
            n: keys[0] // spec.block in draws(spec, values[spec.lane_row], first // spec.block)
            for n, spec in enumerate(program.lists)
        }
        rows = max(first, queries[0]), min(first + program.query_tile, queries[1])
        return {**listed, **_picked(program, asked, rows, keys)}

    return tuple(_visits(program, values, [], answers))


def _picked(program: TileProgram, asked: Asked, queries: Positions, keys: Positions) -> dict[Picked, bool]:
    """What the inputs say of one tile."""
    return {
        Picked(n, scope): asked(test, scope, queries, keys)
        for n, test in enumerate(program.inputs)
        for scope in (Extent.SOME, Extent.EVERY)
    }


def _visits(
    program: TileProgram, values: dict[str, int], drawn: list[tuple[int, ...]], answers: Callable[[int], Answers]
) -> Iterator[Visit]:
    for let in program.lets:
        values[let.name] = evaluate(let.value, values)
    for full, segments in ((True, program.full), (False, program.masked)):
        for segment in segments:
            for tile in _tiles(program, segment, values, drawn, answers):
                yield Visit(tile, full)


def _tiles(
    program: TileProgram,
    segment: Segment,
    values: dict[str, int],
    drawn: list[tuple[int, ...]],
    answers: Callable[[int], Answers],
) -> Iterator[int]:
    for n in range(evaluate(segment.count, values)):
        scope = {**values, "n": n}
        if segment.listed is not None:
            entries = drawn[segment.listed]
            per_block = program.lists[segment.listed].block // program.key_tile
            scope["entry"] = entries[n // per_block] if entries else -1
        tile = scope["tile"] = evaluate(segment.tile, scope)
        if segment.when == TRUE or holds(segment.when, scope, answers(tile)):
            yield tile


def listed_at(program: TileProgram, drawn: list[tuple[int, ...]], tile: int) -> dict[int, bool]:
    """For each list of the program, whether the key tile's block is among this query tile's draws."""
    return {n: tile * program.key_tile // spec.block in drawn[n] for n, spec in enumerate(program.lists)}


def draws(spec: ListSpec, row: int, query_block: int) -> tuple[int, ...]:
    """The entries of one query block in table row `row`: `spec.width` of them, or none for a negative block."""
    seed, lane = spec.lanes[row]
    return drawn_blocks(spec.width, seed, lane, query_block)
