"""Patterns whose pages are held against Python: each kind of term, and what several residues make together."""

from __future__ import annotations

import json

from sparsec.analysis.coverage import View

PATTERNS = (
    "causal attend full",
    "attend none",
    "causal attend sink(5) | window(40)",
    "block 32 causal attend window(2b) | stride(4b, phase = -h)",
    "attend dilated(3) & window(90, ahead = 20)",
    "block 32 causal attend random(2, seed = 3) | window(1b)",
    "block 16 attend global(1b) | columns(-1b ..) | rows(-1b ..) | random(1, seed = 2, lane = h)",
    "attend columns(100 .. ) - rows(-40 ..)",
    "causal attend stride(7) | dilated(5, phase = 2) | stride(3, phase = 1) & dilated(4)",
    "causal attend chunk(48, back = 1) - stride(5)",
    "attend stride(97) & dilated(101) | stride(89)",
)

VIEWS = (
    View((0, 1), (0, 1), 1),
    View((0, 250), (0, 250), 250),
    View((0, 70_000), (0, 70_000), 70_000),
    View((4, 70_000), (100, 65_536), 70_000),
    View((-30, 50), (3, 91), 100),
    View((0, 400), (0, 400), 400, (0, 100, 101, 240, 400), True),
    View((0, 400), (0, 400), 400, (0, 100, 101, 240, 400), False),
)


def as_script(view: View) -> str:
    """The view as a page's script has it."""
    return json.dumps(
        {
            "rows": view.rows,
            "columns": view.columns,
            "keys": view.keys,
            "documents": view.documents,
            "restart": view.restart,
        }
    )
