"""Checked expressions: what `expressions` makes of syntax, and what `evaluate` turns into integers and terms.

Invariant: a Node's names are resolved, its operands have the types that its operation takes, its `depends` and
`depth` cover all that it reaches through `let` and pattern names, and a `let` is the very Node of its value.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sparsec.diagnostics.source import Span

LIMIT = 2**31 - 1
MAX_HEADS = 4096
MAX_LAYERS = 4096
MAX_DEPTH = 200
REFERENCE_DEPTH = 4  # levels that a reference to a pattern counts, for the frames that evaluating it takes


class Type(Enum):
    """The type of an expression, named as diagnostics name it."""

    INTEGER = "an integer"
    BLOCKS = "a length in blocks"
    BOOLEAN = "a boolean"
    LIST = "a list of integers"
    BLOCK_LIST = "a list of block lengths"
    DECIMAL_LIST = "a list of decimals"
    RANGE = "a range"
    BLOCK_RANGE = "a range of blocks"
    TERM = "a set of pairs"
    DECIMAL = "a decimal"
    RUN_TIME_LENGTH = "a run-time length"
    RUN_TIME_RANGE = "a range with a run-time end"
    WEIGHTS = "an input of weights"
    UNKNOWN = "an expression with an error"


class Depends:
    """What an expression's value depends on besides parameters: bits of an int, which is quicker than a flag."""

    NOTHING = 0
    HEAD = 1
    GROUP = 2
    COUNTS = 4  # H and G
    BLOCK = 8
    LAYER = 16
    LAYERS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One checked operation.

    `op` is `const` (value: int or bool), `builtin` (value: h, g, ...), `param` and `file_param` (value: name),
    `input` (value: name), `list`, `index` (args: a list, an integer), `range` (an open end is None), an operator,
    `negate`, `min`, `max`, `tokens`, a built-in term (args in the order of its signature, None where left out),
    `pattern` (value: name; args in the order of its parameters, None for a default), `decimal` (value: its digits),
    `ratio`, or `error`.
    """

    op: str
    type: Type
    span: Span
    args: tuple[Node | None, ...] = ()
    value: int | bool | str = 0
    depends: int = Depends.NOTHING
    depth: int = 1
