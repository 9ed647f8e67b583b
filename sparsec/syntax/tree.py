"""The syntax tree: what the text of a `.sparse` file says, before any name is looked up.

Invariant: every node has the span of the characters it was read from, and `printer` can print any tree.
Numbers keep their spelling's meaning (value and unit), so that `parse(print(tree))` equals `tree` up to spans.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.diagnostics.source import SourceFile, Span


@dataclass(frozen=True, slots=True)
class Integer:
    """`64`, `4k` (value 4096, kilo True), `16b` (blocks True), `2kb` (both)."""

    value: int
    blocks: bool
    kilo: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Decimal:
    """`0.5`, `1e-3`; for the score's statements. `text` is the literal as written: digits, `.`, `e`, sign."""

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Boolean:
    value: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Name:
    """A reference: a built-in (h, g, H, G, B, l, L), parameter, `let`, input, pattern, or `full`, `none`, `causal`.

    One with a dot is of an import that has a name.
    """

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class RangeExpr:
    """`a..b`, `a..`, `..b`: half-open; an open end is None."""

    start: Expr | None
    stop: Expr | None
    span: Span


@dataclass(frozen=True, slots=True)
class ListExpr:
    """`[0, 3, 4..8]`."""

    items: tuple[Expr, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Index:
    """`xs[e]`: one element of a list."""

    items: Expr
    at: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Argument:
    """A call's argument; `name` is None for a positional one."""

    name: Name | None
    value: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Call:
    """`window(16b)`, `min(a, b)`, `tokens(x)`, or another pattern `s2(every = 8b)`."""

    callee: Name
    arguments: tuple[Argument, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Unary:
    """op is `-`, `~` or `not`."""

    op: str
    operand: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Binary:
    """op is one of `or and == != < <= > >= in | & + - * // % /`; `/` only between the integers of a decimal fraction.

    `op_span` covers the operator alone. Comparisons do not chain.
    """

    op: str
    left: Expr
    right: Expr
    span: Span
    op_span: Span


Expr = Integer | Decimal | Boolean | Name | RangeExpr | ListExpr | Index | Call | Unary | Binary


@dataclass(frozen=True, slots=True)
class Comment:
    """A `#` comment without its `#`, stripped on the right; `own_line` if nothing but white space stands before it."""

    text: str
    own_line: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Parameter:
    """`name = default`, in a pattern's or model's parentheses, or after `param`."""

    name: Name
    default: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class HeadsStatement:
    heads: Expr
    kv_heads: Expr | None
    span: Span


@dataclass(frozen=True, slots=True)
class BlockStatement:
    size: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class CausalStatement:
    span: Span


@dataclass(frozen=True, slots=True)
class DocumentsStatement:
    restart: bool
    span: Span


@dataclass(frozen=True, slots=True)
class AttendStatement:
    """`attend E`, `where C attend E` (condition), or `otherwise attend E` (otherwise)."""

    condition: Expr | None
    otherwise: bool
    term: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class LetStatement:
    name: Name
    value: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class InputStatement:
    """`input name : kind`; `kind`, such as `rows` or `blocks(64, 128)`, is kept as written and checked later."""

    name: Name
    kind: Name | Call
    span: Span


@dataclass(frozen=True, slots=True)
class ScaleStatement:
    value: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class ModifierStatement:
    """A modifier of the score: its keyword, and the number, the list or the name of one that may stand behind it."""

    keyword: str
    value: Expr | None
    span: Span


@dataclass(frozen=True, slots=True)
class LayersStatement:
    layers: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class UseStatement:
    """`use P(...)`, `where C use P(...)`, `otherwise use P(...)`; `pattern` is a Name or a Call."""

    condition: Expr | None
    otherwise: bool
    pattern: Name | Call
    span: Span


Statement = (
    HeadsStatement
    | BlockStatement
    | CausalStatement
    | DocumentsStatement
    | AttendStatement
    | LetStatement
    | InputStatement
    | ScaleStatement
    | ModifierStatement
    | LayersStatement
    | UseStatement
)


@dataclass(frozen=True, slots=True)
class ImportItem:
    """`import "path"`, or `import "path" as alias`; `path` as written."""

    path: str
    alias: Name | None
    doc: tuple[str, ...]
    span: Span
    broken: bool = False

    @property
    def defined(self) -> Name | None:
        """The name that the item defines in its file."""
        return self.alias


@dataclass(frozen=True, slots=True)
class ParamItem:
    """`param name = default` at the top of a file."""

    parameter: Parameter
    doc: tuple[str, ...]
    span: Span
    broken: bool = False

    @property
    def defined(self) -> Name:
        """The parameter's name."""
        return self.parameter.name


@dataclass(frozen=True, slots=True)
class PatternItem:
    """`pattern name(parameters) { statements }`; `doc` is the comment lines directly above it.

    An item is `broken` if `parser.recover` had to leave a part of it out; `parser.parse` gives no such tree.
    """

    name: Name
    parameters: tuple[Parameter, ...]
    statements: tuple[Statement, ...]
    doc: tuple[str, ...]
    span: Span
    broken: bool = False

    @property
    def defined(self) -> Name:
        """Its name."""
        return self.name


@dataclass(frozen=True, slots=True)
class ModelItem:
    """`model name(parameters) { statements }`. The parser takes any Statement in either item; sema sorts them."""

    name: Name
    parameters: tuple[Parameter, ...]
    statements: tuple[Statement, ...]
    doc: tuple[str, ...]
    span: Span
    broken: bool = False

    @property
    def defined(self) -> Name:
        """Its name."""
        return self.name


Item = ImportItem | ParamItem | PatternItem | ModelItem

NAMELESS = "_"
"""The name of an item whose head could not be read."""


@dataclass(frozen=True, slots=True)
class File:
    """A whole file: its items in order and every comment, for the printer; `tokens`: how many it has, comments too."""

    source: SourceFile
    items: tuple[Item, ...]
    comments: tuple[Comment, ...]
    tokens: int = 0
