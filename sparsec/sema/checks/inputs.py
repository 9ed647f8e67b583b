"""Checks `input name : kind`: which kinds there are, and what may stand in a kind's parentheses.

Invariant: each declared name has a Node of the type that its kind has in expressions, or an `error` Node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sparsec.diagnostics import codes_meaning as codes
from sparsec.diagnostics.source import Span
from sparsec.sema.checked import CheckedInput
from sparsec.sema.checks.calls import fitted_arguments
from sparsec.sema.checks.expressions import check_arguments
from sparsec.sema.checks.scope import LENGTHS, Scope, error, expect
from sparsec.sema.inputs import TILE, UNITS, forms
from sparsec.sema.model import InputKind, InputUnit
from sparsec.sema.node import Node, Type
from sparsec.syntax import tree

KINDS = {kind.value: kind for kind in InputKind}
TYPES = {InputKind.LENGTH: Type.RUN_TIME_LENGTH, InputKind.WEIGHTS: Type.WEIGHTS}
"""Of the kinds that are no term."""


def declare(statements: Iterable[tree.InputStatement], scope: Scope) -> dict[Span, CheckedInput]:
    """The inputs by the spans of their names, which `scope.names` gains; tiles are left out."""
    found: dict[Span, CheckedInput] = {}
    for statement in statements:
        name = statement.name
        word = statement.kind.callee if isinstance(statement.kind, tree.Call) else statement.kind
        kind = KINDS.get(word.text)
        if kind is None:
            hint = scope.suggestion(word.text, tuple(KINDS))
            facts = {"name": word.text, "kinds": ", ".join(f"`{known}`" for known in KINDS)}
            scope.report(codes.UNKNOWN_KIND.of(scope.source, word.span, facts, hint))
            scope.names[name.text] = error(name.span)
            continue
        scope.names[name.text] = Node("input", TYPES.get(kind, Type.TERM), name.span, value=name.text)
        found[name.span] = CheckedInput(name.text, kind, _unit(kind, statement.kind, scope), name.span)
    return found


def with_tile(given: CheckedInput, kind: tree.Name | tree.Call, scope: Scope) -> CheckedInput:
    """The input with the two lengths of `blocks(m, n)`, if they are there."""
    if given.kind is not InputKind.BLOCKS or not isinstance(kind, tree.Call):
        return given
    callee, shown = kind.callee.text, forms(given.kind)[-1]
    sides = fitted_arguments(callee, TILE, len(TILE), check_arguments(kind, scope), shown, scope)
    if sides is None:
        return given
    for name, side in zip(TILE, sides, strict=True):
        if side is None:
            scope.report(codes.MISSING_ARGUMENT.at(scope.source, kind.span, callee=callee, name=name, usage=shown))
    m, n = sides
    if m is None or n is None:
        return given
    sound = [expect(side, LENGTHS, f"`{name}` of `{callee}`", scope) for name, side in zip(TILE, (m, n), strict=True)]
    return replace(given, tile=(m, n)) if all(sound) else given


def _unit(kind: InputKind, written: tree.Name | tree.Call, scope: Scope) -> InputUnit:
    if isinstance(written, tree.Name) or kind is InputKind.BLOCKS:
        return InputUnit.TOKENS
    match written.arguments:
        case [tree.Argument(None, tree.Name(text))]:
            for unit in UNITS.get(kind, ()):
                if unit.value == text:
                    return unit
    usage = " or ".join(f"`{form}`" for form in forms(kind))
    scope.report(codes.KIND_ARGUMENTS.at(scope.source, written.span, kind=kind.value, usage=usage))
    return InputUnit.TOKENS
