"""The bytes of a head table -> its text; a model's text -> a `.sparse` file.

Invariant: of a file no more is read than tells that it is too large, and what is written has no errors.
"""

from __future__ import annotations

from pathlib import Path

from sparsec import program
from sparsec.diagnostics import codes_tables as codes
from sparsec.diagnostics.model import DiagnosticError, Severity
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.syntax.parser import decode, parse
from sparsec.syntax.printer import print_file

MAX_TABLE_BYTES = 3 << 19


def read_table(path: Path, name: str) -> SourceFile:
    """The text at `path`. Raises DiagnosticError if it is too large or no text, OSError if it cannot be read."""
    with path.open("rb") as stream:
        data = stream.read(MAX_TABLE_BYTES + 1)
    if len(data) > MAX_TABLE_BYTES:
        raise DiagnosticError((codes.TABLE_TOO_LARGE.at(SourceFile(name, ""), Span(0, 0), limit=MAX_TABLE_BYTES),))
    source, problems = decode(name, data)
    if source is None:
        raise DiagnosticError(problems)
    return source


def base_name(source: SourceFile) -> str:
    """The file's name without its folder, as a comment may hold it."""
    return "".join(char if char.isprintable() else "?" for char in Path(source.name).name)


def standard_text(table: SourceFile, text: str) -> str:
    """A table's model as `sparsec fmt` lays it out. Raises DiagnosticError if it is over the language's limits."""
    made = SourceFile(f"{table.name}: the model", text)
    file, problems = parse(made)
    problems = problems or program.check(made)[1]
    errors = [problem.message for problem in problems if problem.severity is Severity.ERROR]
    if file is None or errors:
        raise DiagnosticError((codes.MODEL_TOO_LARGE.at(table, Span(0, 0), why=errors[0]),))
    return print_file(file)
