"""Evaluates checked Nodes to integers, booleans, lists, ranges and terms, for one head, one layer, or none at all.

A value that depends on something not known here (h when no head is given) is None, as is one that has been reported
as wrong; an operation on None is None. Invariant: evaluation ends within MAX_STEPS, or `OverBudget` is raised.
"""

from __future__ import annotations

from sparsec.diagnostics import codes_meaning as codes
from sparsec.sema.builtins import TERMS
from sparsec.sema.model import RunTimeLength
from sparsec.sema.node import LIMIT, Depends, Node, Type
from sparsec.sema.resolution.contain import note_contained
from sparsec.sema.resolution.leaves import build_leaf
from sparsec.sema.resolution.values import MAX_LEAVES, Evaluator, Place, RangeValue, Value
from sparsec.sema.terms import Sized


def evaluate(node: Node, place: Place, run: Evaluator) -> Value | None:
    """The value of `node` at `place`; None if it is not known here or is wrong."""
    run.budget.spend()
    match node.op:
        case "const":
            return node.value if not isinstance(node.value, str) else None
        case "builtin":
            return place.builtins.get(str(node.value))
        case "param":
            return place.parameters.get(str(node.value))
        case "file_param":
            return run.file_parameters.get(str(node.value))
        case "error":
            return None
        case "input":
            if node.type is Type.RUN_TIME_LENGTH:
                return RunTimeLength(run.input_ordinals[str(node.value)])
            return build_leaf(node, [], place, run) if node.type is Type.TERM else None
    if node.depends & Depends.HEAD and node.op not in ("let", "pattern"):
        return _operation(node, place, run)
    key = place.key(node.args[0] if node.op == "let" and node.args[0] is not None else node)
    if key not in place.memo:
        place.memo[key] = _operation(node, place, run)
    return place.memo[key]


def integer(node: Node, place: Place, run: Evaluator) -> int | None:
    """The value of a Node of a number's type."""
    value = evaluate(node, place, run)
    return value if isinstance(value, int) else None


def boolean(node: Node, place: Place, run: Evaluator) -> bool | None:
    """The value of a Node of type BOOLEAN."""
    value = evaluate(node, place, run)
    return value if isinstance(value, bool) else None


def decimal(node: Node, place: Place, run: Evaluator) -> float | None:
    """The value of a Node of type DECIMAL."""
    args = [arg for arg in node.args if arg is not None]
    match node.op:
        case "decimal":
            return float(str(node.value))
        case "negate":
            value = decimal(args[0], place, run)
            return -value if value is not None else None
        case "ratio":
            numbers = [integer(arg, place, run) for arg in args]
            if len(numbers) == 2 and numbers[1] == 0:
                run.problem(codes.DIVISION_BY_ZERO, args[1].span)
                return None
            numerator, denominator = numbers[0], numbers[1] if len(numbers) == 2 else 1
            return numerator / denominator if numerator is not None and denominator is not None else None
    return None


def _operation(node: Node, place: Place, run: Evaluator) -> Value | None:
    args = tuple(arg for arg in node.args if arg is not None)
    match node.op:
        case "let":
            return evaluate(args[0], place, run)
        case "pattern":
            return run.pattern(run, node, place)
        case "list" if node.type is Type.DECIMAL_LIST:
            run.budget.spend(len(args))
            decimals = tuple(decimal(arg, place, run) for arg in args)
            return tuple(value for value in decimals if value is not None) if None not in decimals else None
        case "list":
            items = [_not_empty(evaluate(arg, place, run), arg, run) for arg in args]
            return tuple(item for item in items if isinstance(item, int | RangeValue)) if None not in items else None
        case "range":
            return _range(node, place, run)
        case "and" | "or":
            return _logical(node.op == "or", args, place, run)
        case "not":
            truth = boolean(args[0], place, run)
            return None if truth is None else not truth
        case "index":
            return _element(args[0], args[1], place, run)
        case "in":
            return _membership(args[0], args[1], place, run)
        case "|" | "&" | "difference" | "~":
            return _set(node, args, place, run)
    if node.op in TERMS:
        return build_leaf(node, [evaluate(arg, place, run) if arg else None for arg in node.args], place, run)
    numbers = [integer(arg, place, run) for arg in args]
    known = [number for number in numbers if number is not None]
    if node.op in ("//", "%") and numbers[1] == 0:
        run.problem(codes.DIVISION_BY_ZERO, args[1].span)
        return None
    if len(known) < len(numbers):
        return None
    return _arithmetic(node, known, place, run)


def _arithmetic(node: Node, known: list[int], place: Place, run: Evaluator) -> int | bool | None:
    match node.op:
        case "negate":
            return -known[0]
        case "min":
            return min(known)
        case "max":
            return max(known)
        case "tokens":
            block = place.builtins.get("B")
            if block is None:
                return None
            result = known[0] * block
        case "+":
            result = known[0] + known[1]
        case "-":
            result = known[0] - known[1]
        case "*":
            result = known[0] * known[1]
        case "//":
            result = known[0] // known[1]
        case "%":
            result = known[0] % known[1]
        case "==":
            return known[0] == known[1]
        case "!=":
            return known[0] != known[1]
        case "<":
            return known[0] < known[1]
        case "<=":
            return known[0] <= known[1]
        case ">":
            return known[0] > known[1]
        case ">=":
            return known[0] >= known[1]
        case _:
            raise AssertionError(f"every operation of a Node is evaluated, and {node.op} is not")
    if abs(result) > LIMIT:
        run.problem(codes.TOO_LARGE, node.span, what=f"the value of this `{node.op}`", value=result, limit=LIMIT)
        return None
    return result


def _range(node: Node, place: Place, run: Evaluator) -> RangeValue | None:
    ends: list[int | RunTimeLength | None] = []
    for arg in node.args:
        value = evaluate(arg, place, run) if arg is not None else None
        if arg is not None and not isinstance(value, int | RunTimeLength):
            return None
        ends.append(value if isinstance(value, int | RunTimeLength) else None)
    return RangeValue(ends[0], ends[1])


def _logical(any_of: bool, args: tuple[Node, ...], place: Place, run: Evaluator) -> bool | None:
    unknown = False
    for arg in args:
        truth = boolean(arg, place, run)
        if truth is any_of:
            return truth if not unknown else None
        if truth is None and run.certain:
            return None
        unknown = unknown or truth is None
    return None if unknown else not any_of


def _membership(item: Node, container: Node, place: Place, run: Evaluator) -> bool | None:
    value, where = integer(item, place, run), _not_empty(evaluate(container, place, run), container, run)
    if value is None or where is None:
        return None
    members = where if isinstance(where, tuple) else (where,)
    run.budget.spend(len(members) // 8)
    return any(_holds(member, value) for member in members)


def _element(items: Node, at: Node, place: Place, run: Evaluator) -> int | None:
    where, index = evaluate(items, place, run), integer(at, place, run)
    if not isinstance(where, tuple) or index is None:
        return None
    left: int | None = index if index >= 0 else None
    for item in where:
        run.budget.spend()
        size = _size(item)
        if left is None or size is None:
            break
        if left < size:
            start = item.start if isinstance(item, RangeValue) else item
            assert isinstance(start, int), "a list that may be indexed holds integers"
            return start + left
        left -= size
    sizes = [_size(item) for item in where]
    count = sum(size for size in sizes if size is not None)
    shown = f"a list of {count} element{'s' * (count != 1)}" if None not in sizes else "a list with an open range"
    run.problem(codes.NO_ELEMENT, at.span, index=index, list=shown)
    return None


def _size(item: int | float | RangeValue) -> int | None:
    """How many elements of a list an item stands for; None for a range without a start."""
    if not isinstance(item, RangeValue):
        return 1
    if not isinstance(item.start, int):
        return None
    return max((item.stop if isinstance(item.stop, int) else LIMIT + 1) - item.start, 0)


def _not_empty(value: Value | None, node: Node, run: Evaluator) -> Value | None:
    """`value`, unless it is a range of plain numbers (whose negative ends are just numbers) that holds none."""
    if not isinstance(value, RangeValue) or not isinstance(value.start, int) or not isinstance(value.stop, int):
        return value
    if value.start < value.stop:
        return value
    run.problem(codes.EMPTY_RANGE, node.span, range=f"{value.start}..{value.stop}")
    return None


def _holds(member: Value | float | None, value: int) -> bool:
    if isinstance(member, RangeValue):
        above = not isinstance(member.start, int) or member.start <= value
        return above and (not isinstance(member.stop, int) or value < member.stop)
    return member == value


def _set(node: Node, args: tuple[Node, ...], place: Place, run: Evaluator) -> Sized | None:
    parts = []
    for arg in args:
        value = evaluate(arg, place, run)
        if isinstance(value, Sized):
            parts.append(value)
    if len(parts) < len(args):
        return None
    if sum(part.leaves for part in parts) > MAX_LEAVES:
        run.problem(codes.TOO_MANY_TERMS, node.span, limit=MAX_LEAVES)
        return None
    run.budget.spend(len(parts))
    if node.op in ("|", "&"):
        note_contained(node, args, parts, place.builtins.get("B", 1), run)
    match node.op:
        case "|":
            made = run.terms.union(parts)
        case "&":
            made = run.terms.intersection(parts)
        case "difference":
            made = run.terms.difference(*parts)
        case _:
            made = run.terms.complement(parts[0])
    run.budget.spend(made.leaves // 4)
    return made
