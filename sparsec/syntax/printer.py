"""Syntax tree -> text in the one canonical format: `sparsec fmt`, and the origins in generated code.

Invariant: `parse(print_file(tree))` equals `tree` up to spans, and printing that again gives the same text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import assert_never

from sparsec.diagnostics.source import SourceFile, Span
from sparsec.syntax.tree import (
    Argument,
    AttendStatement,
    Binary,
    BlockStatement,
    Boolean,
    Call,
    CausalStatement,
    Comment,
    Decimal,
    DocumentsStatement,
    Expr,
    File,
    HeadsStatement,
    ImportItem,
    Index,
    InputStatement,
    Integer,
    Item,
    LayersStatement,
    LetStatement,
    ListExpr,
    ModelItem,
    ModifierStatement,
    Name,
    Parameter,
    ParamItem,
    PatternItem,
    RangeExpr,
    ScaleStatement,
    Statement,
    Unary,
    UseStatement,
)

WIDTH = 100
"""Columns of a line, where a statement can be divided."""
INDENT = "    "

# How tightly each operator binds; the same ladder as the grammar's.
_ELEMENT, _EXPRESSION, _NOT, _COMPARISON, _RANGE, _UNION, _SIGN, _ATOM = 0, 1, 3, 4, 5, 6, 10, 11
_BINARY = {
    **{"or": 1, "and": 2},
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in"), 4),
    **{"|": 6, "&": 7, "+": 8, "-": 8, "*": 9, "//": 9, "%": 9, "/": 9},
}


def print_expr(expr: Expr) -> str:
    """An expression on one line with the fewest parentheses: only the canonical spelling of its tokens."""
    return _expr(expr, _EXPRESSION)


def print_statement(statement: Statement, lead: int = 0) -> str:
    """A statement on one line; what stands before an arm's `attend` or `use` is at least `lead` characters wide."""
    match statement:
        case HeadsStatement(heads, kv_heads):
            return f"heads {print_expr(heads)}" + ("" if kv_heads is None else f" kv {print_expr(kv_heads)}")
        case BlockStatement(size):
            return f"block {print_expr(size)}"
        case CausalStatement():
            return "causal"
        case DocumentsStatement(restart):
            return "documents restart" if restart else "documents"
        case AttendStatement(condition, otherwise, term):
            return f"{_arm(condition, otherwise):{lead}}attend {print_expr(term)}"
        case LetStatement(name, value):
            return f"let {name.text} = {print_expr(value)}"
        case InputStatement(name, kind):
            return f"input {name.text} : {print_expr(kind)}"
        case ScaleStatement(value):
            return f"scale {print_expr(value)}"
        case ModifierStatement(keyword, given):
            return keyword if given is None else f"{keyword} {print_expr(given)}"
        case LayersStatement(layers):
            return f"layers {print_expr(layers)}"
        case UseStatement(condition, otherwise, pattern):
            return f"{_arm(condition, otherwise):{lead}}use {print_expr(pattern)}"
        case _:
            assert_never(statement)


def print_file(tree: File) -> str:
    """The whole file: four spaces of indent, a statement a line, an empty line between items, every comment kept.

    Consecutive arms have their `attend` or `use` in one column. A statement that is wider than WIDTH goes on in further
    lines, one for each operand of its loosest operator, or with as many elements of its list as fit in each.
    A comment on a line of its own stays above what it precedes, one behind a statement or an operand stays behind it;
    other comments inside a statement move above it. Single empty lines between statements, and between two `param`,
    stay.
    """
    page = _Page(tree.source, tree.comments)
    before: Item | None = None
    for item in tree.items:
        page.apart = not (isinstance(item, ImportItem | ParamItem) and type(before) is type(item))
        page.comments_before(item.span.start, item.span.start, 0)
        match item:
            case ImportItem(path, alias):
                page.line(f'import "{path}"' + ("" if alias is None else f" as {alias.text}"), item.span, 0)
            case ParamItem(parameter):
                page.line(f"param {_parameter(parameter)}", item.span, 0)
            case PatternItem() | ModelItem():
                _print_body(page, item)
            case _:
                assert_never(item)
        page.item_stop = item.span.stop
        before = item
    page.apart = True
    end = len(tree.source.text) + 1
    page.comments_before(end, end, 0)
    return "".join(f"{text}\n" for text in page.lines)


def _print_body(page: _Page, item: PatternItem | ModelItem) -> None:
    keyword = "pattern" if isinstance(item, PatternItem) else "model"
    parameters = f"({', '.join(map(_parameter, item.parameters))})" if item.parameters else ""
    start, end = item.span.start, item.span.stop - 1
    head = f"{keyword} {item.name.text}{parameters} {{"
    if len(head) <= WIDTH:
        page.line(head, Span(start, start), 0)
    else:
        page.line(f"{keyword} {item.name.text}(", Span(start, start), 0)
        page.more(_filled(map(_parameter, item.parameters), 1), 1)
        page.more([") {"], 0)
    page.fresh = True
    for run in _runs(item.statements):
        lead = max(_lead(statement) for statement in run)
        for statement in run:
            _print_statement(page, statement, lead)
    page.comments_before(end, end, 1)
    page.fresh = True
    page.line("}", Span(end, end + 1), 0)


def _print_statement(page: _Page, statement: Statement, lead: int) -> None:
    """In as many lines as it takes."""
    text, expr = print_statement(statement, lead), _long_part(statement)
    before = text[: -len(print_expr(expr))] if expr is not None else ""
    wide = len(text) + len(INDENT) > WIDTH
    operands = [] if expr is None else _operands(expr)
    if len(operands) > 1 and (wide or page.has_comment(operands[0].stop, statement.span.stop)):
        first, *others = operands
        page.comments_before(statement.span.start, first.stop, 1)
        page.line(f"{before}{first.text}", Span(statement.span.start, first.stop), 1)
        for operand in others:
            page.fresh = True
            page.comments_before(operand.start, operand.stop, 2, together=True)
            page.fresh = True
            page.line(operand.text, Span(operand.start, operand.stop), 2)
        page.stop = statement.span.stop
        return
    page.comments_before(statement.span.start, statement.span.stop, 1)
    if wide and isinstance(expr, ListExpr) and expr.items:
        page.line(f"{before}[", statement.span, 1)
        page.more(_filled((_expr(item, _ELEMENT) for item in expr.items), 2), 2)
        page.more(["]"], 1)
    else:
        page.line(text, statement.span, 1)


def _long_part(statement: Statement) -> Expr | None:
    """What a statement ends with and may be long."""
    match statement:
        case AttendStatement(_, _, term):
            return term
        case LetStatement(_, value):
            return value
    return None


@dataclass(frozen=True, slots=True)
class _Operand:
    """An operand with its operator before it, and its place in the source."""

    text: str
    start: int
    stop: int


def _operands(expr: Expr) -> list[_Operand]:
    """Those of the operators that bind as the loosest one does, which group from the left; one, without operators."""
    if not isinstance(expr, Binary) or expr.op == "/" or _BINARY[expr.op] == _COMPARISON:
        return [_Operand(print_expr(expr), expr.span.start, expr.span.stop)]
    strength, later = _BINARY[expr.op], []
    left: Expr = expr
    while isinstance(left, Binary) and _BINARY[left.op] == strength:
        right = left.right
        later.append(_Operand(f"{left.op} {_expr(right, strength + 1)}", right.span.start, right.span.stop))
        left = left.left
    return [_Operand(_expr(left, strength), left.span.start, left.span.stop), *reversed(later)]


def _filled(parts: Iterable[str], indent: int) -> Iterator[str]:
    """Lines with as many parts as fit, a comma behind each but the last."""
    line = ""
    for part in parts:
        if line and len(INDENT) * indent + len(line) + len(part) + 3 > WIDTH:
            yield f"{line},"
            line = part
        else:
            line = f"{line}, {part}" if line else part
    yield line


def _runs(statements: tuple[Statement, ...]) -> Iterator[list[Statement]]:
    """Consecutive arms together, so that their `attend` or `use` can be aligned; every other statement alone."""
    for is_arm, run in groupby(statements, key=lambda statement: _lead(statement) > 0):
        together = list(run)
        yield from [together] if is_arm else ([statement] for statement in together)


def _lead(statement: Statement) -> int:
    """The width of an arm's condition; 0 for a statement that is no arm."""
    match statement:
        case AttendStatement(condition, otherwise) | UseStatement(condition, otherwise):
            return len(_arm(condition, otherwise))
    return 0


@dataclass(slots=True)
class _Page:
    """The lines so far, and the comments that have not been printed yet."""

    source: SourceFile
    comments: tuple[Comment, ...]
    lines: list[str] = field(default_factory=list)
    printed: int = 0  # how many comments
    stop: int = 0  # where the last piece ends in the source
    item_stop: int = 0  # where the last item ends there
    fresh: bool = True  # no empty line may come next
    apart: bool = False  # an empty line has to come next
    on_code: bool = False  # the last line has no comment yet
    starts: list[int] = field(init=False)  # of the comments

    def __post_init__(self) -> None:
        self.starts = [comment.span.start for comment in self.comments]

    def line(self, text: str, span: Span, indent: int, *, code: bool = True) -> None:
        """Adds a line, after an empty one if the source has one there or `apart` asks for it."""
        gap = self.source.line_of(span.start) - self.source.line_of(self.stop) > 1
        if (gap or self.apart) and not self.fresh:
            self.lines.append("")
        self.lines.append(f"{INDENT * indent}{text}")
        self.stop = span.stop
        self.fresh, self.apart, self.on_code = False, False, code

    def more(self, texts: Iterable[str], indent: int) -> None:
        """Adds lines of the piece whose first line was the last one."""
        self.lines += (f"{INDENT * indent}{text}" for text in texts)

    def has_comment(self, start: int, stop: int) -> bool:
        """Whether a comment that has not been printed is within a part of the source."""
        place = bisect_left(self.starts, start, lo=self.printed)
        return place < len(self.starts) and self.starts[place] < stop

    def comments_before(self, start: int, stop: int, indent: int, *, together: bool = False) -> None:
        """Prints the comments that end before `stop`, for a piece that starts at `start`; `together`: without empty
        lines between them."""
        while self.printed < len(self.comments) and (comment := self.comments[self.printed]).span.start < stop:
            self.printed += 1
            if self.on_code and not comment.own_line and comment.span.start < start:
                self.lines[-1] += f"  #{comment.text}"
                self.stop, self.on_code = comment.span.stop, False
                continue
            self.fresh = self.fresh or together
            self.line(f"#{comment.text}", comment.span, indent, code=False)
            if indent == 0 and (not comment.own_line or comment.span.start < self.item_stop):
                self.apart = True  # moved here: it must not become the documentation of the next item


def _arm(condition: Expr | None, otherwise: bool) -> str:
    if otherwise:
        return "otherwise "
    return "" if condition is None else f"where {print_expr(condition)} "


def _parameter(parameter: Parameter) -> str:
    return f"{parameter.name.text} = {print_expr(parameter.default)}"


def _argument(argument: Argument) -> str:
    value = _expr(argument.value, _ELEMENT)
    return value if argument.name is None else f"{argument.name.text} = {value}"


def _expr(expr: Expr, least: int) -> str:
    """The expression, in parentheses if it binds less tightly than `least`."""
    text, strength = _loose(expr)
    return text if strength >= least else f"({text})"


def _loose(expr: Expr) -> tuple[str, int]:
    """The expression without parentheses around it, and how tightly it binds."""
    match expr:
        case Integer(value, blocks, kilo):
            number = f"{value // 1024}k" if kilo else str(value)
            return f"{number}b" if blocks else number, _ATOM
        case Decimal(text) | Name(text):
            return text, _ATOM
        case Boolean(value):
            return "true" if value else "false", _ATOM
        case ListExpr(items):
            return f"[{', '.join(_expr(item, _ELEMENT) for item in items)}]", _ATOM
        case Index(items, at):
            return f"{_expr(items, _ATOM)}[{print_expr(at)}]", _ATOM
        case Call(callee, arguments):
            return f"{callee.text}({', '.join(map(_argument, arguments))})", _ATOM
        case RangeExpr(start, stop):
            return _range(start, stop)
        case Unary("not", operand):
            return f"not {_expr(operand, _NOT)}", _NOT
        case Unary(op, operand):
            return f"{op}{_expr(operand, _SIGN)}", _SIGN
        case Binary(op, left, right):
            strength = _BINARY[op]
            left_least = strength + (strength == _COMPARISON)  # comparisons do not chain
            sign = op if op == "/" else f" {op} "  # a decimal fraction is one number: 1/128
            return f"{_expr(left, left_least)}{sign}{_expr(right, strength + 1)}", strength
        case _:
            assert_never(expr)


def _range(start: Expr | None, stop: Expr | None) -> tuple[str, int]:
    if start is None or stop is None:
        ends = [".." if end is None else _expr(end, _UNION) for end in (start, stop)]
        return " ".join(ends), _ELEMENT
    tight = all(isinstance(end, Integer | Name) for end in (start, stop))
    return (".." if tight else " .. ").join((_expr(start, _UNION), _expr(stop, _UNION))), _RANGE
