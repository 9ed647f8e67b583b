"""Turns an expression of the syntax tree into a checked `Node`: names resolved, types and units settled.

Invariant: every problem is reported where it stands, once; what contains it becomes an `error` Node, which takes
part in no further complaint. Recursion follows brackets (bounded by the parser); chains of operators are loops.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from sparsec.diagnostics import codes_meaning as codes
from sparsec.diagnostics import codes_text
from sparsec.sema.builtins import FUNCTIONS, TERMS, VALUES, usage
from sparsec.sema.checks.calls import check_pattern_call, check_term_call
from sparsec.sema.checks.scope import (
    LENGTHS,
    LISTS,
    RANGES,
    Scope,
    error,
    expect,
    expect_all,
    is_zero,
    make,
    same_unit,
    unknown_name,
)
from sparsec.sema.modifiers import decimal_places
from sparsec.sema.node import LIMIT, Depends, Node, Type
from sparsec.syntax import tree

CHAINED = ("|", "&", "and", "or")


def check(expr: tree.Expr, scope: Scope) -> Node:
    """The checked Node of any expression."""
    match expr:
        case tree.Integer():
            if expr.value > LIMIT:
                facts = {"what": "this number", "value": expr.value, "limit": LIMIT}
                scope.report(codes.TOO_LARGE.of(scope.source, expr.span, facts))
                return error(expr.span)
            return Node("const", Type.BLOCKS if expr.blocks else Type.INTEGER, expr.span, value=expr.value)
        case tree.Decimal():
            scope.report(codes.DECIMAL_NOT_HERE.at(scope.source, expr.span, places=decimal_places()))
            return error(expr.span)
        case tree.Boolean():
            return Node("const", Type.BOOLEAN, expr.span, value=expr.value)
        case tree.Name():
            return _name(expr, scope)
        case tree.RangeExpr():
            return _range(expr, scope)
        case tree.ListExpr():
            return _list(expr, scope)
        case tree.Index():
            return _index(expr, scope)
        case tree.Call():
            return _call(expr, scope)
        case tree.Unary():
            return _unary(expr, scope)
        case tree.Binary():
            return _chain(expr, scope)
        case _:
            assert_never(expr)


def check_decimal(expr: tree.Expr, scope: Scope, role: str = "the value") -> Node:
    """The Node of a value of the score's statements: a decimal, an integer, or a fraction of two integers."""
    if isinstance(expr, tree.Decimal):
        return Node("decimal", Type.DECIMAL, expr.span, value=expr.text)
    if isinstance(expr, tree.Unary) and expr.op == "-":
        return make("negate", Type.DECIMAL, expr.span, (check_decimal(expr.operand, scope, role),), scope)
    parts = (expr.left, expr.right) if isinstance(expr, tree.Binary) and expr.op == "/" else (expr,)
    checked = tuple(check(part, scope) for part in parts)
    if not expect_all(checked, (Type.INTEGER,), role, scope):
        return error(expr.span)
    return make("ratio", Type.DECIMAL, expr.span, checked, scope)


def _name(expr: tree.Name, scope: Scope) -> Node:
    name = expr.text
    if name in TERMS:
        return check_term_call(expr, [], expr.span, scope)
    if name in VALUES:
        found = VALUES[name]
        if not found.depends & scope.available:
            facts = {"name": name, "meaning": found.meaning, "where": scope.where}
            scope.report(codes.NAME_NOT_HERE.of(scope.source, expr.span, facts))
            return error(expr.span)
        return Node("builtin", Type.INTEGER, expr.span, value=name, depends=found.depends)
    if name in scope.names:
        bound = scope.names[name]
        if bound.op in ("param", "file_param", "input"):
            return replace(bound, span=expr.span)
        if (reason := _beyond(bound, scope)) is not None:
            meaning = f"a `let` that depends on `{reason}`"
            scope.report(codes.NAME_NOT_HERE.at(scope.source, expr.span, name=name, meaning=meaning, where=scope.where))
            return error(expr.span)
        return make("let", bound.type, expr.span, (bound,), scope)
    if name in scope.later:
        scope.report(codes.USED_BEFORE_LET.at(scope.source, expr.span, name=name))
        return error(expr.span)
    if name in scope.patterns:
        return check_pattern_call(expr, [], expr.span, scope)
    return unknown_name(expr, scope)


def _beyond(bound: Node, scope: Scope) -> str | None:
    """A built-in name that the value of a `let` depends on and that has no value in this scope; B has one in each."""
    missing = bound.depends & ~scope.available & ~Depends.BLOCK
    return next((name for name, value in VALUES.items() if value.depends & missing), None)


def _range(expr: tree.RangeExpr, scope: Scope) -> Node:
    start = check(expr.start, scope) if expr.start is not None else None
    stop = check(expr.stop, scope) if expr.stop is not None else None
    ends = [end for end in (start, stop) if end is not None]
    fixed = [end for end in ends if end.type is not Type.RUN_TIME_LENGTH]
    if not expect_all(fixed, LENGTHS, "the end of a range", scope):
        return error(expr.span)
    unit: Type | None = fixed[0].type if fixed else Type.INTEGER
    if len(ends) == 2:
        run_time = any(end.type is Type.RUN_TIME_LENGTH for end in ends)
        unit = same_unit(ends[0], ends[1], expr.span, scope) if not run_time else unit
    if len(fixed) < len(ends):
        if unit is Type.BLOCKS:
            scope.report(
                codes.MIXED_UNITS.at(scope.source, expr.span, left=Type.BLOCKS.value, right=Type.RUN_TIME_LENGTH.value)
            )
            return error(expr.span)
        return make("range", Type.RUN_TIME_RANGE, expr.span, (start, stop), scope)
    if unit is None:
        return error(expr.span)
    return make("range", Type.BLOCK_RANGE if unit is Type.BLOCKS else Type.RANGE, expr.span, (start, stop), scope)


def _is_decimal(expr: tree.Expr) -> bool:
    while isinstance(expr, tree.Unary) and expr.op == "-":
        expr = expr.operand
    return isinstance(expr, tree.Decimal) or (isinstance(expr, tree.Binary) and expr.op == "/")


def _list(expr: tree.ListExpr, scope: Scope) -> Node:
    if any(map(_is_decimal, expr.items)):
        decimals = tuple(check_decimal(item, scope, "an element of a list of decimals") for item in expr.items)
        return make("list", Type.DECIMAL_LIST, expr.span, decimals, scope)
    items = tuple(check(item, scope) for item in expr.items)
    if not expect_all(items, (*LENGTHS, *RANGES), "an element of a list", scope):
        return error(expr.span)
    fixed = [item for item in items if not is_zero(item)]
    in_blocks = [item.type in (Type.BLOCKS, Type.BLOCK_RANGE) for item in fixed]
    if any(in_blocks) and not all(in_blocks):
        first = in_blocks.index(not in_blocks[0])
        left, right = fixed[0].type.value, fixed[first].type.value
        scope.report(codes.MIXED_UNITS.at(scope.source, fixed[first].span, left=left, right=right))
        return error(expr.span)
    return make("list", Type.BLOCK_LIST if any(in_blocks) else Type.LIST, expr.span, items, scope)


def _index(expr: tree.Index, scope: Scope) -> Node:
    items, at = check(expr.items, scope), check(expr.at, scope)
    if False in [
        expect(items, LISTS, "what is indexed", scope),
        expect(at, (Type.INTEGER,), "an index", scope),
    ]:
        return error(expr.span)
    return make("index", Type.BLOCKS if items.type is Type.BLOCK_LIST else Type.INTEGER, expr.span, (items, at), scope)


def _call(expr: tree.Call, scope: Scope) -> Node:
    name = expr.callee.text
    if name in TERMS:
        return check_term_call(expr.callee, check_arguments(expr, scope), expr.span, scope)
    if name in FUNCTIONS:
        return _function(expr, scope)
    if name in VALUES or name in scope.names or name in scope.later:
        scope.report(codes.NOT_CALLABLE.at(scope.source, expr.callee.span, name=name))
        return error(expr.span)
    if name in scope.patterns:
        return check_pattern_call(expr.callee, check_arguments(expr, scope), expr.span, scope)
    check_arguments(expr, scope)
    unknown_name(expr.callee, scope, "term, function or pattern")
    return error(expr.span)


def check_arguments(expr: tree.Call, scope: Scope) -> list[tuple[tree.Argument, Node]]:
    """The arguments of a call, each with the checked Node of its value."""
    return [(argument, check(argument.value, scope)) for argument in expr.arguments]


def _function(expr: tree.Call, scope: Scope) -> Node:
    name = expr.callee.text
    for argument in expr.arguments:
        if argument.name is not None:
            scope.report(
                codes.UNKNOWN_ARGUMENT.at(
                    scope.source, argument.name.span, callee=name, name=argument.name.text, known="all without a name"
                )
            )
            return error(expr.span)
    args = tuple(check(argument.value, scope) for argument in expr.arguments)
    function = FUNCTIONS[name]
    if len(args) < len(function.arguments):
        missing = function.arguments[len(args)]
        scope.report(codes.MISSING_ARGUMENT.at(scope.source, expr.span, callee=name, name=missing, usage=usage(name)))
        return error(expr.span)
    taken = len(function.arguments)
    if len(args) > taken and not function.more:
        count, span = f"{taken} argument{'s' * (taken > 1)}", expr.arguments[taken].span
        scope.report(codes.TOO_MANY_ARGUMENTS.at(scope.source, span, callee=name, count=count, usage=usage(name)))
        return error(expr.span)
    if name == "tokens":
        hint = "a plain integer already counts tokens: write it without `tokens`"
        if not expect(args[0], (Type.BLOCKS,), "the argument of `tokens`", scope, hint):
            return error(expr.span)
        return make(name, Type.INTEGER, expr.span, args, scope, Depends.BLOCK)
    if not expect_all(args, LENGTHS, f"an argument of `{name}`", scope):
        return error(expr.span)
    fixed = [arg for arg in args if not is_zero(arg)] or list(args)
    for arg in fixed[1:]:
        if same_unit(fixed[0], arg, arg.span, scope) is None:
            return error(expr.span)
    return make(name, fixed[0].type, expr.span, args, scope)


def _unary(expr: tree.Unary, scope: Scope) -> Node:
    operand = check(expr.operand, scope)
    types: dict[str, tuple[Type, ...]] = {"-": LENGTHS, "~": (Type.TERM,), "not": (Type.BOOLEAN,)}
    hint = "write `~` for the complement of a set" if operand.type is Type.TERM and expr.op != "~" else None
    if not expect(operand, types[expr.op], f"the operand of `{expr.op}`", scope, hint):
        return error(expr.span)
    return make("negate" if expr.op == "-" else expr.op, operand.type, expr.span, (operand,), scope)


def _chain(expr: tree.Binary, scope: Scope) -> Node:
    """Folds a left-leaning chain from its first operand; runs of one associative operator become one Node."""
    spine: list[tree.Binary] = []
    first: tree.Expr = expr
    while isinstance(first, tree.Binary):
        spine.append(first)
        first = first.left
    spine.reverse()
    left, position = check(first, scope), 0
    while position < len(spine):
        binary = spine[position]
        position += 1
        if binary.op not in CHAINED:
            left = _binary(binary, left, check(binary.right, scope), scope)
            continue
        operands = [left, check(binary.right, scope)]
        while position < len(spine) and spine[position].op == binary.op:
            binary = spine[position]
            operands.append(check(binary.right, scope))
            position += 1
        left = _associative(binary, operands, scope)
    return left


def _associative(binary: tree.Binary, operands: list[Node], scope: Scope) -> Node:
    wanted = Type.TERM if binary.op in "|&" else Type.BOOLEAN
    hint = None
    if wanted is Type.TERM and any(operand.type is Type.BOOLEAN for operand in operands):
        hint = f"write `{'or' if binary.op == '|' else 'and'}` between booleans"
    if wanted is Type.BOOLEAN and any(operand.type is Type.TERM for operand in operands):
        hint = f"write `{'|' if binary.op == 'or' else '&'}` between sets of pairs"
    if not expect_all(_known(operands), (wanted,), f"an operand of `{binary.op}`", scope, hint):
        return error(binary.span)
    return make(binary.op, wanted, binary.span, tuple(operands), scope)


def _known(operands: Iterable[Node]) -> list[Node]:
    """Those that are not in error, whose types are another question."""
    return [operand for operand in operands if operand.type is not Type.UNKNOWN]


def _binary(expr: tree.Binary, left: Node, right: Node, scope: Scope) -> Node:
    op, role = expr.op, f"an operand of `{expr.op}`"
    if op == "/":
        scope.report(codes.FRACTION_NOT_HERE.at(scope.source, expr.op_span, places=decimal_places()))
        return error(expr.span)
    if op == "in":
        return _membership(expr, left, right, scope)
    if op == "-" and Type.TERM in (left.type, right.type):
        sets = expect_all(_known((left, right)), (Type.TERM,), role, scope)
        return make("difference", Type.TERM, expr.span, (left, right), scope) if sets else error(expr.span)
    types = (*LENGTHS, Type.BOOLEAN) if op in ("==", "!=") else LENGTHS
    hints = {"+": "write `|` for the union of sets", "//": codes_text.COMMENT_HINT}
    hint = hints.get(op) if Type.TERM in (left.type, right.type) else None
    if not expect_all((left, right), types, role, scope, hint):
        return error(expr.span)
    type_: Type | None
    match op:
        case "*":
            if left.type is Type.BLOCKS and right.type is Type.BLOCKS:
                expect(right, (Type.INTEGER,), "the factor of a length", scope)
                return error(expr.span)
            type_ = Type.BLOCKS if Type.BLOCKS in (left.type, right.type) else Type.INTEGER
        case "//" | "%":
            if left.type is Type.INTEGER and right.type is Type.BLOCKS:
                type_ = same_unit(left, right, expr.op_span, scope)
            elif op == "//" and left.type is right.type:
                type_ = Type.INTEGER
            else:
                type_ = left.type
        case "+" | "-":
            type_ = same_unit(left, right, expr.op_span, scope)
        case _:
            if Type.BOOLEAN in (left.type, right.type) and left.type is not right.type:
                other = right if left.type is Type.BOOLEAN else left
                expect(other, (Type.BOOLEAN,), "the other side of the comparison", scope)
                return error(expr.span)
            type_ = Type.BOOLEAN if same_unit(left, right, expr.op_span, scope) is not None else None
    return make(op, type_, expr.span, (left, right), scope) if type_ is not None else error(expr.span)


def _membership(expr: tree.Binary, left: Node, right: Node, scope: Scope) -> Node:
    if not all(
        [
            expect(left, LENGTHS, "the left side of `in`", scope),
            expect(right, (*LISTS, *RANGES), "the right side of `in`", scope),
        ]
    ):
        return error(expr.span)
    in_blocks = right.type in (Type.BLOCK_LIST, Type.BLOCK_RANGE)
    if in_blocks is not (left.type is Type.BLOCKS) and not is_zero(left) and right.args:
        scope.report(codes.MIXED_UNITS.at(scope.source, expr.op_span, left=left.type.value, right=right.type.value))
        return error(expr.span)
    return make("in", Type.BOOLEAN, expr.span, (left, right), scope)
