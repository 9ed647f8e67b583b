"""The inputs of a checked pattern with known parameters -> their declarations, with the sides of tiles in tokens.

Invariant: a side is at least 1 and at most LIMIT; inputs of one name have one tile in all patterns that share them.
"""

from __future__ import annotations

from sparsec.diagnostics import codes_meaning as codes
from sparsec.sema.checked import CheckedInput, CheckedPattern
from sparsec.sema.inputs import TILE, kind_text
from sparsec.sema.model import InputDecl, InputKind
from sparsec.sema.node import LIMIT, Node, Type
from sparsec.sema.resolution.evaluate import integer
from sparsec.sema.resolution.values import Evaluator, Place

Tiles = dict[str, tuple[int, int] | None]
"""By the names of inputs of kind `blocks`; None where both sides are the block size."""


def tiles_of(pattern: CheckedPattern, place: Place, run: Evaluator) -> Tiles:
    """The tiles of the pattern's own inputs; one in error is left out."""
    found: Tiles = {}
    for given in pattern.inputs:
        if given.kind is not InputKind.BLOCKS or given.inherited:
            continue
        if given.tile is None:
            found[given.name] = None
            continue
        m, n = (_side(name, node, place, run) for name, node in zip(TILE, given.tile, strict=True))
        if m is not None and n is not None:
            found[given.name] = m, n
    return found


def _side(name: str, node: Node, place: Place, run: Evaluator) -> int | None:
    """In tokens; None if it is not known or is wrong."""
    value, block = integer(node, place, run), place.builtins.get("B")
    in_blocks = node.type is Type.BLOCKS
    if value is None or (in_blocks and block is None):
        return None
    what, unit = f"`{name}` of `blocks`", "b" if in_blocks else ""
    if value < 1:
        run.problem(codes.TOO_SMALL, node.span, what=what, value=f"{value}{unit}", least=f"1{unit}")
        return None
    tokens = value * block if in_blocks and block is not None else value
    if tokens > LIMIT:
        run.problem(codes.TOO_LARGE, node.span, what=f"{what} in tokens", value=tokens, limit=LIMIT)
        return None
    return tokens


def inherit_tiles(
    outer: CheckedPattern, own: Tiles, inner: CheckedPattern, others: Tiles, node: Node, place: Place, run: Evaluator
) -> None:
    """Adds to `own` the tiles of a pattern that `node` names in `outer`; reports those that are not the same."""
    block = place.builtins.get("B")
    for name, tile in others.items():
        mine = own.setdefault(name, tile)
        if (mine or (block, block)) != (tile or (block, block)):
            given = next(each for each in inner.inputs if each.name == name)
            kinds = {"inner_kind": _written(given, tile), "outer_kind": _written(given, mine)}
            run.problem(codes.INPUT_DISAGREES, node.span, name=name, inner=inner.name, outer=outer.name, **kinds)


def _written(given: CheckedInput, tile: tuple[int, int] | None) -> str:
    return kind_text(given.kind, given.unit, tile)


def declarations(pattern: CheckedPattern, place: Place, tiles: Tiles) -> tuple[InputDecl, ...]:
    """What the pattern and those that it names declare, in the order of their ordinals."""
    found = []
    for given in pattern.inputs:
        line, column = place.line_of(given.span), place.source.column_of(given.span.start)
        found.append(InputDecl(given.name, given.kind, line, column, given.unit, tiles.get(given.name)))
    return tuple(found)
