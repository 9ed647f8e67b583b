"""The kinds of run-time inputs as the language writes them: `columns`, `rows(blocks)`, `blocks(64, 128)`.

Invariant: `kind_text` of a declaration, read as a kind again, gives the same kind, unit and tile.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from sparsec.sema.model import InputDecl, InputKind, InputUnit

UNITS: dict[InputKind, tuple[InputUnit, ...]] = {
    InputKind.COLUMNS: (InputUnit.BLOCKS,),
    InputKind.SLASHES: (InputUnit.BLOCKS, InputUnit.TILES),
    InputKind.ROWS: (InputUnit.BLOCKS,),
}
"""What the entries of a list may count instead of tokens: the word in parentheses."""
TERM_KINDS = tuple(kind for kind in InputKind if kind not in (InputKind.LENGTH, InputKind.WEIGHTS))
"""The kinds whose inputs are terms."""
OF_KEYS = (InputKind.TOKENS, InputKind.LABELS, InputKind.WEIGHTS)
"""The kinds that speak of keys, which a cache remembers."""
TILE = ("m", "n")
"""The sides of a tile of `blocks(m, n)`."""


def forms(kind: InputKind) -> tuple[str, ...]:
    """All ways to write a kind."""
    units = tuple(f"{kind.value}({unit.value})" for unit in UNITS.get(kind, ()))
    return (kind.value, *units, *([f"{kind.value}({', '.join(TILE)})"] if kind is InputKind.BLOCKS else []))


def kind_text(kind: InputKind, unit: InputUnit, tile: Sequence[object] | None) -> str:
    """A kind as a declaration writes it."""
    given = [unit.value] if unit is not InputUnit.TOKENS else tile or ()
    return f"{kind.value}({', '.join(map(str, given))})" if given else kind.value


def input_statement(decl: InputDecl) -> str:
    """The declaration as a statement."""
    return f"input {decl.name} : {kind_text(decl.kind, decl.unit, decl.tile)}"


def settled(inputs: Sequence[InputDecl], block: int) -> tuple[InputDecl, ...]:
    """The declarations of a pattern with that block size, every tile of `blocks` written out."""
    return tuple(
        replace(decl, tile=(block, block)) if decl.kind is InputKind.BLOCKS and decl.tile is None else decl
        for decl in inputs
    )


def input_names(inputs: Sequence[InputDecl]) -> tuple[str, ...]:
    """The names of inputs, in the order of their ordinals."""
    return tuple(decl.name for decl in inputs)


def named(text: str, inputs: Sequence[InputDecl]) -> str:
    """The canonical text of terms, which has the ordinals of inputs, with their names."""
    return re.sub(r"\binput(\d+)\b", lambda found: inputs[int(found[1])].name, text)
