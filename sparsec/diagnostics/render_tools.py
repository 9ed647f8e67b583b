"""Diagnostics -> what other tools read: SARIF 2.1.0 for code scanning, and the workflow commands of GitHub Actions.

Invariant: no character of a file or of its name ends a line or a field of a workflow command.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import quote

from sparsec.diagnostics.model import Diagnostic
from sparsec.diagnostics.render import in_file_order

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def render_sarif(diagnostics: Iterable[Diagnostic], version: str) -> str:
    """A SARIF 2.1.0 log of one run; columns count UTF-16 units.

    Source: OASIS, Static Analysis Results Interchange Format, 2.1.0, sections 3.13 to 3.30.
    """
    found = in_file_order(diagnostics)
    codes = sorted({diagnostic.code for diagnostic in found})
    driver = {
        "name": "sparsec",
        "version": version,
        "rules": [{"id": code} for code in codes],
    }
    results = [
        {
            "ruleId": diagnostic.code,
            "ruleIndex": codes.index(diagnostic.code),
            "level": diagnostic.severity.value,
            "message": {"text": _whole(diagnostic)},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": quote(diagnostic.source.name)},
                        "region": _region(diagnostic),
                    }
                }
            ],
        }
        for diagnostic in found
    ]
    run = {"tool": {"driver": driver}, "columnKind": "utf16CodeUnits", "results": results}
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2)


def render_github(diagnostics: Iterable[Diagnostic]) -> str:
    """A workflow command a record, which GitHub shows beside the line; columns count characters."""
    return "\n".join(
        f"::{diagnostic.severity.value} file={_property(diagnostic.source.name)},line={diagnostic.line},"
        f"endLine={diagnostic.source.line_of(diagnostic.span.stop)},col={diagnostic.column},"
        f"title={_property(f'sparsec {diagnostic.code}')}::{_data(_whole(diagnostic))}"
        for diagnostic in in_file_order(diagnostics)
    )


def _whole(diagnostic: Diagnostic) -> str:
    """The message, notes and hint, a line each."""
    hint = () if diagnostic.hint is None else (f"help: {diagnostic.hint}",)
    return "\n".join((diagnostic.message, *(f"note: {note}" for note in diagnostic.notes), *hint))


def _region(diagnostic: Diagnostic) -> dict[str, int]:
    source, stop = diagnostic.source, diagnostic.span.stop
    last = source.line_of(stop)
    return {
        "startLine": diagnostic.line,
        "startColumn": _units(source.line_text(diagnostic.line)[: diagnostic.column - 1]) + 1,
        "endLine": last,
        "endColumn": _units(source.line_text(last)[: source.column_of(stop) - 1]) + 1,
    }


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
