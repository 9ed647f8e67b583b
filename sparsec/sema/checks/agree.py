"""What a pattern must share with the patterns that it names: documents, the score, and run-time inputs.

Invariant: the pattern that comes back lists the inputs of everything it names, each name once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sparsec.diagnostics import codes_meaning as codes
from sparsec.sema.checked import CheckedPattern
from sparsec.sema.checks.scope import Scope
from sparsec.sema.inputs import kind_text
from sparsec.sema.model import Documents, InputKind
from sparsec.sema.modifiers import ENTRIES
from sparsec.sema.node import Node

SCORE_STATEMENTS = ("scale", *ENTRIES)


def merged(pattern: CheckedPattern, patterns: Mapping[str, CheckedPattern], scope: Scope) -> CheckedPattern:
    """`pattern` with the inputs of the patterns it names; reports what they do not agree on."""
    inputs = {own.name: own for own in pattern.inputs}
    for reference in pattern.references:
        inner = patterns[str(reference.value)]
        _documents(pattern, inner, reference, scope)
        for statement in SCORE_STATEMENTS:
            if statement in inner.statements and statement not in pattern.statements:
                scope.report(
                    codes.SCORE_DISAGREES.at(
                        scope.source, reference.span, inner=inner.name, outer=pattern.name, statement=statement
                    )
                )
        for other in inner.inputs:
            own = inputs.setdefault(other.name, replace(other, inherited=True))
            if (own.kind, own.unit) != (other.kind, other.unit):
                kinds = (kind_text(each.kind, each.unit, None) for each in (other, own))
                facts = dict(zip(("inner_kind", "outer_kind"), kinds, strict=True))
                facts |= {"name": other.name, "inner": inner.name, "outer": pattern.name}
                scope.report(codes.INPUT_DISAGREES.of(scope.source, reference.span, facts))
    found = replace(pattern, inputs=tuple(inputs.values()))
    _no_tree_in_documents(found, scope)
    return found


def _no_tree_in_documents(pattern: CheckedPattern, scope: Scope) -> None:
    for given in pattern.inputs:
        if given.kind is InputKind.TREE and pattern.documents is not Documents.NONE:
            scope.report(codes.TREE_IN_DOCUMENTS.at(scope.source, pattern.statements["documents"], name=given.name))


def _documents(pattern: CheckedPattern, inner: CheckedPattern, reference: Node, scope: Scope) -> None:
    if inner.documents not in (Documents.NONE, pattern.documents):
        statement = inner.documents.value
        scope.report(
            codes.DOCUMENTS_DISAGREE.at(
                scope.source, reference.span, inner=inner.name, outer=pattern.name, statement=statement
            )
        )
