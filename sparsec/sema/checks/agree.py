"""What a pattern must share with the patterns that it names: documents, the score, and run-time inputs.

Invariant: the pattern that comes back lists the inputs of everything it names, each name once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sparsec.diagnostics import codes_meaning as codes
from sparsec.sema.checked import CheckedPattern
from sparsec.sema.checks.scope import Scope
from sparsec.sema.model import Documents
from sparsec.sema.modifiers import ENTRIES
from sparsec.sema.node import Node

SCORE_STATEMENTS = ("scale", *ENTRIES)


def merged(pattern: CheckedPattern, patterns: Mapping[str, CheckedPattern], scope: Scope) -> CheckedPattern:
    """`pattern` with the inputs of the patterns it names; reports what they do not agree on."""
    inputs = {decl.name: decl for decl in pattern.inputs}
    spans = dict(pattern.input_spans)
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
        for decl in inner.inputs:
            own = inputs.setdefault(decl.name, decl)
            spans.setdefault(decl.name, inner.input_spans[decl.name])
            if own.kind is not decl.kind:
                scope.report(
                    codes.INPUT_DISAGREES.at(
                        scope.source,
                        reference.span,
                        name=decl.name,
                        inner=inner.name,
                        inner_kind=decl.kind.value,
                        outer=pattern.name,
                        outer_kind=own.kind.value,
                    )
                )
    return replace(pattern, inputs=tuple(inputs.values()), input_spans=spans)


def _documents(pattern: CheckedPattern, inner: CheckedPattern, reference: Node, scope: Scope) -> None:
    if inner.documents not in (Documents.NONE, pattern.documents):
        statement = inner.documents.value
        scope.report(
            codes.DOCUMENTS_DISAGREE.at(
                scope.source, reference.span, inner=inner.name, outer=pattern.name, statement=statement
            )
        )
