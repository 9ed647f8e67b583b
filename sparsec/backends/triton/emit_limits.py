"""Predicate of a tile program -> lines that set `live`: which scores of the masked tile at hand are.

Invariant: what is the same for all columns of a row is asked once a row, and a row's limits take one comparison a pair.
"""

from __future__ import annotations

from collections.abc import Mapping

from sparsec.backends.triton.expr import assignment
from sparsec.ir.expr.nodes import TRUE, Bool, Var
from sparsec.ir.tiles.limits import FIRST, RowLimits, limits_of


def live_lines(
    predicate: Bool, inside: Bool, column: str, width: int, names: Mapping[str, str], first: str
) -> tuple[str, ...]:
    """`first`: the first column of the tile, whose columns are first .. first + width - 1."""
    limits = limits_of(predicate, inside, Var(column), width)
    names = {**names, "i": "i", "j": "j", FIRST.name: first}
    lines: list[str] = []
    for n, part in enumerate(limits.parts):
        lines += _part_lines(f"seen_{n}", f"_{n}", part, width, names)
        lines.append(f"live = live | seen_{n}" if n else "live = seen_0")
    common = _part_lines("seen" if lines else "live", "", limits.common, width, names)
    return (*lines, *common, *(("live = live & seen",) if lines and common else ()))


def _part_lines(name: str, suffix: str, part: RowLimits, width: int, names: Mapping[str, str]) -> list[str]:
    """Lines that set `name`; none where the part is no limit."""
    lines: list[str] = []
    tests, first, column = [], names[FIRST.name], f"tl.arange(0, {width})[None, :]"
    lower, upper = f"lower{suffix}", f"upper{suffix}"
    for limited, limit in ((lower, part.lower), (upper, part.upper)):
        if limit is not None:
            lines += assignment(limited, limit, names)
    if part.lower is not None and part.upper is not None:
        tests.append(f"between({column}, {lower} - {first}, {upper} - {first})")
    elif part.lower is not None:
        tests.append(f"{column} >= {lower} - {first}")
    elif part.upper is not None:
        tests.append(f"{column} < {upper} - {first}")
    if part.pair != TRUE:
        lines += assignment(f"allowed{suffix}", part.pair, names)
        tests.append(f"{name} & allowed{suffix}" if tests else f"allowed{suffix}")
    return [*lines, *(f"{name} = {test}" for test in tests)]
