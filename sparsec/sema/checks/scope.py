"""The names that an expression may use, and the questions that every check asks of a Node: its type and its unit.

Invariant: a Node of type UNKNOWN has been reported already, and no function here reports it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache

from sparsec.diagnostics import codes_meaning as codes
from sparsec.diagnostics.model import Diagnostic
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.sema.builtins import FUNCTIONS, TERMS, VALUES, usage
from sparsec.sema.node import MAX_DEPTH, Depends, Node, Type
from sparsec.syntax import tree
from sparsec.syntax.lexer import keywords

LENGTHS = (Type.INTEGER, Type.BLOCKS)
LISTS = (Type.LIST, Type.BLOCK_LIST)
RANGES = (Type.RANGE, Type.BLOCK_RANGE)
SHORT = {
    Type.LIST: "a list",
    Type.BLOCK_LIST: "a list",
    Type.RANGE: "a range",
    Type.BLOCK_RANGE: "a range",
    Type.RUN_TIME_RANGE: "a range",
}
POSITIONS = ("i", "j", "qb", "kb", "Nq", "Nk")
POSITIONS_HINT = (
    "terms compare positions: `causal` is j <= i, `window(n)` is 0 <= i - j < n, `columns(a .. b)` is a <= j < b"
)
MEANT = {
    **{"head": "h", "head_idx": "h", "group": "g", "kv_head": "g", "layer": "l", "layer_idx": "l"},
    **{"num_heads": "H", "num_kv_heads": "G", "kv_heads": "G", "num_layers": "L", "block_size": "B"},
    **{"True": "true", "False": "false"},
}
"""Names of other languages and models, and what stands for them."""
MAX_COMPARISONS = 1_000_000  # of a letter with another, in the search for names that are close


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an item: its default gives its type."""

    name: str
    type: Type
    default: Node


@dataclass(frozen=True, slots=True)
class Signature:
    """What a reference to a pattern needs of it: its parameters, and what its set depends on."""

    name: str
    parameters: tuple[Parameter, ...]
    depends: int
    depth: int


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that an expression may use, and where its problems go.

    `names` are values (parameters, lets, inputs); `later` are lets that stand further down; `patterns` may be called
    as terms, None for one whose own definition is in error; `available` are the built-in values that exist here.
    """

    source: SourceFile
    report: Callable[[Diagnostic], None]
    where: str
    available: int
    names: dict[str, Node] = field(default_factory=dict)
    later: frozenset[str] = frozenset()
    patterns: Mapping[str, Signature | None] = field(default_factory=dict)
    comparisons_left: list[int] = field(default_factory=lambda: [MAX_COMPARISONS])

    def suggestion(self, name: str, candidates: Sequence[str]) -> str | None:
        """`did you mean ...?`, if a candidate is close; none any more once MAX_COMPARISONS are made in a file."""
        if self.comparisons_left[0] <= 0:
            return None
        name, considered = name[:64], list[str]()
        for candidate in sorted(candidate for candidate in set(candidates) if " " not in candidate):
            self.comparisons_left[0] -= len(name) * len(candidate)
            if self.comparisons_left[0] < 0:
                break
            considered.append(candidate)
        close = get_close_matches(name, considered, n=1)
        return f"did you mean `{close[0]}`?" if close else None


SETS = frozenset({"|", "&", "~", "difference"})


@cache
def reserved() -> frozenset[str]:
    """The names that no file may define: those of the language."""
    return keywords().union(TERMS, FUNCTIONS, VALUES)


def error(span: Span) -> Node:
    return Node("error", Type.UNKNOWN, span)


def make(
    op: str,
    type_: Type,
    span: Span,
    args: tuple[Node | None, ...],
    scope: Scope,
    depends: int = Depends.NOTHING,
    depth: int = 1,
    value: str = "",
) -> Node:
    """A Node over `args` with its dependence and depth; `error` if the depth passes its limit, or an argument is one.

    A set with a part in error is kept, so that its other parts are still looked at.
    """
    for arg in args:
        if arg is not None:
            if arg.type is Type.UNKNOWN and op not in SETS:
                return error(span)
            depends |= arg.depends
            depth = max(depth, arg.depth + 1)
    if depth > MAX_DEPTH:
        scope.report(codes.TOO_DEEP.at(scope.source, span, limit=MAX_DEPTH))
        return error(span)
    return Node(op, type_, span, args, value, depends, depth)


def is_zero(node: Node) -> bool:
    """A literal 0, which is as good a count of blocks as of tokens."""
    return node.op == "const" and node.value == 0 and node.type is Type.INTEGER


def expect(node: Node, types: tuple[Type, ...], role: str, scope: Scope, hint: str | None = None) -> bool:
    """Whether `node` has one of `types`; reports it if not, once."""
    if node.type in types:
        return True
    if node.type is Type.UNKNOWN:
        return False
    if node.type in (Type.RUN_TIME_LENGTH, Type.WEIGHTS):
        code = codes.RUN_TIME_LENGTH if node.type is Type.RUN_TIME_LENGTH else codes.WEIGHTS_NOT_HERE
        scope.report(code.at(scope.source, node.span))
        return False
    expected = " or ".join(dict.fromkeys(SHORT.get(type_, type_.value) for type_ in types))
    if hint is None and node.type is Type.BLOCKS and Type.INTEGER in types:
        hint = "write a plain integer; `tokens(x)` turns a count of blocks into tokens"
    scope.report(
        codes.WRONG_TYPE.at(scope.source, node.span, hint=hint, role=role, expected=expected, actual=node.type.value)
    )
    return False


def expect_all(
    checked: Sequence[Node], types: tuple[Type, ...], role: str, scope: Scope, hint: str | None = None
) -> bool:
    """Whether every node has one of `types`; reports each that has not."""
    return False not in [expect(node, types, role, scope, hint) for node in checked]


def same_unit(left: Node, right: Node, span: Span, scope: Scope) -> Type | None:
    """The common unit of two lengths; reports a mixture and gives None."""
    if left.type is right.type:
        return left.type
    if is_zero(left):
        return right.type
    if is_zero(right):
        return left.type
    scope.report(codes.MIXED_UNITS.at(scope.source, span, left=left.type.value, right=right.type.value))
    return None


def unknown_name(expr: tree.Name, scope: Scope, what: str = "value, term or pattern") -> Node:
    if expr.text in FUNCTIONS:
        first = FUNCTIONS[expr.text].arguments[0]
        scope.report(
            codes.MISSING_ARGUMENT.at(scope.source, expr.span, callee=expr.text, name=first, usage=usage(expr.text))
        )
        return error(expr.span)
    values = [name for name, value in VALUES.items() if value.depends & scope.available]
    candidates = (*scope.names, *scope.later, *scope.patterns, *TERMS, *FUNCTIONS, *values)
    meant = MEANT.get(expr.text)
    if expr.text in POSITIONS:
        hint: str | None = POSITIONS_HINT
    elif meant is not None and (meant in values or meant in ("true", "false")):
        hint = f"did you mean `{meant}`?"
    else:
        hint = scope.suggestion(expr.text, candidates)
    scope.report(codes.UNKNOWN_NAME.at(scope.source, expr.span, hint=hint, what=what, name=expr.text))
    return error(expr.span)
