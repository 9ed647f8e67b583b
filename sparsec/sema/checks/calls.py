"""Fits the arguments of a call to a built-in term's slots or to a pattern's parameters.

Invariant: the args of the Node that comes back stand in the order of the slots or parameters, None where left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from sparsec.diagnostics import codes_meaning as codes
from sparsec.diagnostics.source import Span
from sparsec.sema.builtins import TERMS, Slot, SlotKind, usage
from sparsec.sema.checks.scope import LENGTHS, RANGES, Parameter, Scope, error, expect, is_zero, make
from sparsec.sema.node import REFERENCE_DEPTH, Depends, Node, Type
from sparsec.syntax import tree

Arguments = Sequence[tuple[tree.Argument, Node]]


def check_term_call(callee: tree.Name, arguments: Arguments, span: Span, scope: Scope) -> Node:
    """The Node of a built-in term."""
    name, slots = callee.text, TERMS[callee.text].slots
    positional = [slot.name for slot in slots if not slot.by_name]
    fitted = fitted_arguments(name, tuple(slot.name for slot in slots), len(positional), arguments, usage(name), scope)
    if fitted is None:
        return error(span)
    args: list[Node | None] = []
    sound = True
    for slot, arg in zip(slots, fitted, strict=True):
        if arg is None and not slot.optional:
            scope.report(codes.MISSING_ARGUMENT.at(scope.source, span, callee=name, name=slot.name, usage=usage(name)))
            sound = False
        elif arg is not None:
            sound = _takes(name, slot, arg, args[0] if args else None, scope) and sound
        args.append(arg)
    if not sound:
        return error(span)
    of_head = any(slot.of_head and arg is None for slot, arg in zip(slots, args, strict=True))
    return make(name, Type.TERM, span, tuple(args), scope, Depends.HEAD if of_head else Depends.NOTHING)


def check_pattern_call(callee: tree.Name, arguments: Arguments, span: Span, scope: Scope) -> Node:
    """The Node of a reference to a pattern, its arguments of the types of its parameters."""
    signature = scope.patterns[callee.text]
    if signature is None:
        return error(span)
    names = tuple(parameter.name for parameter in signature.parameters)
    shown = f"{callee.text}({', '.join(f'{name} = ...' for name in names)})" if names else callee.text
    fitted = fitted_arguments(callee.text, names, len(names), arguments, shown, scope)
    if fitted is None:
        return error(span)
    pairs = zip(signature.parameters, fitted, strict=True)
    if False in [arg is None or fits_parameter(arg, parameter, scope) for parameter, arg in pairs]:
        return error(span)
    depth = signature.depth + REFERENCE_DEPTH
    return make("pattern", Type.TERM, span, tuple(fitted), scope, signature.depends, depth, callee.text)


def fits_parameter(arg: Node, parameter: Parameter, scope: Scope) -> bool:
    """Whether `arg` has the parameter's type; 0 fits either unit, `[]` any list, and integers are decimals."""
    empty = arg.op == "list" and not arg.args and parameter.type is Type.BLOCK_LIST
    integers = arg.type is Type.LIST and parameter.type is Type.DECIMAL_LIST
    if empty or integers or (is_zero(arg) and parameter.type in LENGTHS):
        return True
    if arg.type in LENGTHS and parameter.type in LENGTHS and arg.type is not parameter.type:
        scope.report(
            codes.MIXED_UNITS.at(
                scope.source, arg.span, left=f"{arg.type.value} for `{parameter.name}`", right=parameter.type.value
            )
        )
        return False
    return expect(arg, (parameter.type,), f"`{parameter.name}`", scope)


def fitted_arguments(
    callee: str, names: tuple[str, ...], positional: int, arguments: Arguments, shown: str, scope: Scope
) -> list[Node | None] | None:
    """The arguments by slot, or None after a report."""
    fitted: list[Node | None] = [None] * len(names)
    sound, count = True, 0
    for argument, node in arguments:
        if argument.name is None:
            count += 1
            if count > positional:
                how_many = "no argument" if not positional else f"{positional} argument{'s' * (positional > 1)}"
                scope.report(
                    codes.TOO_MANY_ARGUMENTS.at(scope.source, argument.span, callee=callee, count=how_many, usage=shown)
                )
                sound = False
                continue
            index = count - 1
        elif argument.name.text not in names:
            name = argument.name.text
            hint = scope.suggestion(name, names)
            known = ", ".join(names) or "none"
            scope.report(
                codes.UNKNOWN_ARGUMENT.at(
                    scope.source, argument.name.span, hint=hint, callee=callee, name=name, known=known
                )
            )
            sound = False
            continue
        else:
            index = names.index(argument.name.text)
        if fitted[index] is not None:
            scope.report(codes.REPEATED_ARGUMENT.at(scope.source, argument.span, name=names[index]))
            sound = False
        fitted[index] = node
    return fitted if sound else None


def _takes(term: str, slot: Slot, arg: Node, first: Node | None, scope: Scope) -> bool:
    role = f"`{slot.name}` of `{term}`"
    match slot.takes:
        case SlotKind.RANGE:
            return expect(arg, (*RANGES, Type.RUN_TIME_RANGE), f"the range of `{term}`", scope, "write `a..b`")
        case SlotKind.INTEGER:
            return expect(arg, (Type.INTEGER,), role, scope)
        case SlotKind.COUNT:
            return expect(arg, LENGTHS, role, scope)
        case SlotKind.LENGTH:
            return (slot.run_time and arg.type is Type.RUN_TIME_LENGTH) or expect(arg, LENGTHS, role, scope)
        case SlotKind.SAME | SlotKind.PHASE:
            return _in_the_unit(first, slot.takes, arg, role, scope)
        case _:
            assert_never(slot.takes)


def _in_the_unit(first: Node | None, takes: SlotKind, arg: Node, role: str, scope: Scope) -> bool:
    """Whether `arg` is in the unit of the first argument."""
    if first is None or first.type is Type.UNKNOWN:
        return False
    in_blocks = first.type is Type.BLOCKS
    if not expect(arg, LENGTHS, role, scope):
        return False
    if (arg.type is Type.BLOCKS) is in_blocks or is_zero(arg) or (takes is SlotKind.PHASE and in_blocks):
        return True
    scope.report(codes.MIXED_UNITS.at(scope.source, arg.span, left=first.type.value, right=arg.type.value))
    return False
