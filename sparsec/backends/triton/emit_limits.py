"""Predicate of a tile program -> lines that set `live`: which scores of the masked tile at hand are.

Invariant: what is the same for all columns of a row is asked once a row. One interval of a row takes one comparison a
pair; several are words with a bit for each column, and take one test of a bit, however many limits there are.
"""

from __future__ import annotations

from collections.abc import Mapping

from sparsec.backends.triton.expr import assignment
from sparsec.ir.expr.nodes import TRUE, Bool, Var
from sparsec.ir.tiles.limits import FIRST, Limits, RowLimits, limits_of

_WORD = 32
"""Columns of a word."""


def live_lines(
    predicate: Bool, inside: Bool, column: str, width: int, names: Mapping[str, str], first: str
) -> tuple[str, ...]:
    """`first`: the first column of the tile, whose columns are first .. first + width - 1."""
    limits = limits_of(predicate, inside, Var(column), width)
    names = {**names, "i": "i", "j": "j", FIRST.name: first}
    if limits.intervals:
        return tuple(_word_lines(limits, width, names))
    lines: list[str] = []
    for n, part in enumerate(limits.parts):
        lines += _part_lines(f"seen_{n}", f"_{n}", part, width, names)
        lines.append(f"live = live | seen_{n}" if n else "live = seen_0")
    common = _part_lines("seen" if lines else "live", "", limits.common, width, names)
    return (*lines, *common, *(("live = live & seen",) if lines and common else ()))


def _part_lines(name: str, suffix: str, part: RowLimits, width: int, names: Mapping[str, str]) -> list[str]:
    """Lines that set `name`; none where the part is no limit."""
    lines = _limit_lines(suffix, part, names)
    tests, first, column = [], names[FIRST.name], _columns(width)
    lower, upper = f"lower{suffix}", f"upper{suffix}"
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


def _limit_lines(suffix: str, part: RowLimits, names: Mapping[str, str]) -> list[str]:
    """Lines that set the limits of the part."""
    lines: list[str] = []
    for limited, limit in ((f"lower{suffix}", part.lower), (f"upper{suffix}", part.upper)):
        if limit is not None:
            lines += assignment(limited, limit, names)
    return lines


def _word_lines(limits: Limits, width: int, names: Mapping[str, str]) -> list[str]:
    """Lines that set `live`, of intervals."""
    lines: list[str] = []
    for suffix, part in (*((f"_{n}", part) for n, part in enumerate(limits.parts)), ("", limits.common)):
        lines += _limit_lines(suffix, part, names)
    word = ""
    for n, at in reversed(tuple(enumerate(range(0, width, _WORD)))):
        lines.append(f"word_{n} = {_bits('_0', limits.parts[0], at, names)}")
        for m, part in enumerate(limits.parts[1:], start=1):
            lines.append(f"word_{n} = word_{n} | {_bits(f'_{m}', part, at, names)}")
        if common := _bits("", limits.common, at, names):
            lines.append(f"word_{n} = word_{n} & {common}")
        word = f"tl.where(column < {at + _WORD}, word_{n}, {word})" if word else f"word_{n}"
    lines += [f"column = {_columns(width)}", f"live = has_column({word}, column)"]
    if limits.common.pair != TRUE:
        lines += [*assignment("allowed", limits.common.pair, names), "live = live & allowed"]
    return lines


def _bits(suffix: str, part: RowLimits, at: int, names: Mapping[str, str]) -> str:
    """The part's columns among those from number `at` of the tile on; empty where it is no limit."""
    first = names[FIRST.name] + (f" + {at}" if at else "")
    lower = () if part.lower is None else (f"columns_from(lower{suffix}, {first})",)
    upper = () if part.upper is None else (f"~columns_from(upper{suffix}, {first})",)
    return " & ".join((*lower, *upper))


def _columns(width: int) -> str:
    return f"tl.arange(0, {width})[None, :]"
