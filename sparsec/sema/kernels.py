"""What a pattern has that the kernels do not take: one diagnostic for each such construct."""

from __future__ import annotations

from sparsec.diagnostics import codes_meaning as codes
from sparsec.diagnostics.model import Diagnostic
from sparsec.sema.checked import CheckedFile
from sparsec.sema.model import Documents

STATEMENTS = {
    "softcap": codes.SOFTCAP_UNSUPPORTED,
    "alibi": codes.ALIBI_UNSUPPORTED,
    "learned_sink": codes.LEARNED_SINK_UNSUPPORTED,
}


def unsupported_by_kernels(checked: CheckedFile, name: str) -> tuple[Diagnostic, ...]:
    """One error for each construct of pattern `name` that the kernels do not take, at the line that has it."""
    pattern, source = checked.patterns[name], checked.source
    found = [
        codes.INPUT_UNSUPPORTED.at(source, pattern.input_spans[decl.name], name=decl.name, kind=decl.kind.value)
        for decl in pattern.inputs
    ]
    if pattern.documents is not Documents.NONE:
        restart = pattern.documents is Documents.RESTART
        code = codes.RESTART_UNSUPPORTED if restart else codes.DOCUMENTS_UNSUPPORTED
        found.append(code.at(source, pattern.statements["documents"]))
    for statement, code in STATEMENTS.items():
        if statement in pattern.statements:
            found.append(code.at(source, pattern.statements[statement]))
    return tuple(sorted(found, key=lambda diagnostic: diagnostic.span.start))
