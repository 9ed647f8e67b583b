"""What a pattern has that the kernels do not take: one diagnostic for each such construct."""

from __future__ import annotations

from sparsec.diagnostics import codes_meaning as codes
from sparsec.diagnostics.model import Diagnostic
from sparsec.sema.checked import CheckedFile
from sparsec.sema.model import InputKind


def unsupported_by_kernels(checked: CheckedFile, name: str) -> tuple[Diagnostic, ...]:
    """One error for each construct of pattern `name` that the kernels do not take, at the line that has it."""
    pattern, source = checked.patterns[name], checked.source
    found = [
        codes.INPUT_UNSUPPORTED.at(source, given.span, name=given.name, kind=given.kind.value)
        for given in pattern.inputs
        if given.kind is InputKind.WEIGHTS
    ]
    return tuple(sorted(found, key=lambda diagnostic: diagnostic.span.start))
