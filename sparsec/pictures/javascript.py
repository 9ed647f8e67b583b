"""Bands in closed form -> JavaScript that a page evaluates: each bound as a function of the row and the number of keys.

Invariant: the text holds numbers and the names below; what it computes is what `ir.expr.evaluate` does, since every
value and product is a double without rounding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import assert_never

from sparsec.analysis.rows import BandForm
from sparsec.ir.bands.band import Band, Congruence
from sparsec.ir.expr import nodes as x
from sparsec.ir.expr.fold import fold


def js_value(data: object) -> str:
    """A value of JSON that is safe in a script of a page, whatever its strings hold."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def js_expression(tree: x.Tree) -> str:
    """The expression or condition, every part in parentheses."""
    return fold(tree, _printed)


def js_bands(bands: Sequence[Band]) -> str:
    """The list of bands that `templates/pictures/counts.js` reads."""
    return f"[{','.join(map(_band, bands))}]"


def _printed(node: x.Tree, parts: tuple[str, ...]) -> str:
    match node:
        case x.Int(value):
            return str(value) if value >= 0 else f"({value})"
        case x.Var(name):
            return name
        case x.Add():
            return f"({parts[0]}+{parts[1]})"
        case x.Sub():
            return f"({parts[0]}-{parts[1]})"
        case x.Mul():
            return f"({parts[0]}*{parts[1]})"
        case x.FloorDiv():
            return f"div({parts[0]},{parts[1]})"
        case x.Mod():
            return f"mod({parts[0]},{parts[1]})"
        case x.Min():
            return f"Math.min({parts[0]},{parts[1]})"
        case x.Max():
            return f"Math.max({parts[0]},{parts[1]})"
        case x.Select():
            return f"({parts[0]}?{parts[1]}:{parts[2]})"
        case x.Truth(value):
            return "true" if value else "false"
        case x.Less():
            return f"({parts[0]}<{parts[1]})"
        case x.And():
            return f"({parts[0]}&&{parts[1]})"
        case x.Or():
            return f"({parts[0]}||{parts[1]})"
        case x.Not():
            return f"(!{parts[0]})"
        case x.Listed() | x.Picked():
            raise ValueError("a band's bounds ask no list and no input")
        case _:
            assert_never(node)


def _band(band: Band) -> str:
    form = BandForm(band)
    parts = [f"lower:{_function(form.lower)}", f"upper:{_function(form.upper)}"]
    for name, edge in (("firstRow", form.first_row), ("lastRow", form.last_row)):
        parts.append(f"{name}:{'null' if edge is None else _function(edge)}")
    parts.append(f"residues:{js_value([_residue(c) for c in band.congruences])}")
    lists = [
        {"count": t.draws.count, "seed": t.draws.seed, "lane": t.draws.lane, "block": t.draws.block, "not": t.negated}
        for t in band.lists
    ]
    parts.append(f"lists:{js_value(lists)}")
    return f"{{{','.join(parts)}}}"


def _function(expression: x.Expr) -> str:
    return f"(i,nk)=>{js_expression(expression)}"


def _residue(c: Congruence) -> dict[str, object]:
    return {"unit": c.unit, "period": c.period, "phase": c.phase, "width": c.width, "moving": c.moving}
