"""Runs a tile program: the interpreter that gives it its meaning; pictures, counts and the torch target use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sparsec.ir.bands.draws import drawn_blocks
from sparsec.ir.expr.evaluate import evaluate, holds
from sparsec.ir.expr.nodes import TRUE
from sparsec.ir.tiles.program import ListSpec, Segment, TileProgram


@dataclass(frozen=True, slots=True)
class Visit:
    tile: int
    full: bool


def visits(
    program: TileProgram,
    constants: Mapping[str, int],
    rows: tuple[int, int],
    n_keys: int,
    document: tuple[int, int] | None = None,
) -> tuple[Visit, ...]:
    """The key tiles visited for rows[0] <= i < rows[1] (of one query tile), in the order of the kernel's loops.

    `document`: its first key and one past its last, for programs made `in_document`.
    """
    values = {**constants, "i0": rows[0], "i1": rows[1] - 1, "nk": n_keys}
    if document is not None:
        values |= {"begin": document[0], "end": document[1]}
    drawn = [draws(spec, values[spec.lane_row], rows[0] // spec.block) for spec in program.lists]

    return tuple(_visits(program, values, drawn, lambda tile: listed_at(program, drawn, tile)))


def transposed_visits(
    program: TileProgram, constants: Mapping[str, int], keys: tuple[int, int], n_keys: int, queries: tuple[int, int]
) -> tuple[Visit, ...]:
    """The query tiles visited for keys[0] <= j < keys[1] (of one key tile), for queries[0] <= i < queries[1].

    Tiles count from the query tile that holds queries[0].
    """
    base = queries[0] // program.query_tile * program.query_tile
    values = {**constants, "j0": keys[0], "j1": keys[1] - 1, "nk": n_keys}
    values |= {"base": base, "begin": queries[0] - base, "end": queries[1] - base}

    def listed(tile: int) -> dict[int, bool]:
        first = base + tile * program.query_tile
        return {
            n: keys[0] // spec.block in draws(spec, values[spec.lane_row], first // spec.block)
            for n, spec in enumerate(program.lists)
        }

    return tuple(_visits(program, values, [], listed))


def _visits(
    program: TileProgram, values: dict[str, int], drawn: list[tuple[int, ...]], listed: Callable[[int], dict[int, bool]]
) -> Iterator[Visit]:
    for let in program.lets:
        values[let.name] = evaluate(let.value, values)
    for full, segments in ((True, program.full), (False, program.masked)):
        for segment in segments:
            for tile in _tiles(program, segment, values, drawn, listed):
                yield Visit(tile, full)


def _tiles(
    program: TileProgram,
    segment: Segment,
    values: dict[str, int],
    drawn: list[tuple[int, ...]],
    listed: Callable[[int], dict[int, bool]],
) -> Iterator[int]:
    for n in range(evaluate(segment.count, values)):
        scope = {**values, "n": n}
        if segment.listed is not None:
            entries = drawn[segment.listed]
            per_block = program.lists[segment.listed].block // program.key_tile
            scope["entry"] = entries[n // per_block] if entries else -1
        tile = scope["tile"] = evaluate(segment.tile, scope)
        if segment.when == TRUE or holds(segment.when, scope, listed(tile)):
            yield tile


def listed_at(program: TileProgram, drawn: list[tuple[int, ...]], tile: int) -> dict[int, bool]:
    """For each list of the program, whether the key tile's block is among this query tile's draws."""
    return {n: tile * program.key_tile // spec.block in drawn[n] for n, spec in enumerate(program.lists)}


def draws(spec: ListSpec, row: int, query_block: int) -> tuple[int, ...]:
    """The entries of one query block in table row `row`: `spec.width` of them, or none for a negative block."""
    seed, lane = spec.lanes[row]
    return drawn_blocks(spec.width, seed, lane, query_block)
