"""Diagnostics -> text for people, or JSON for tools: the only place where a record becomes output.

Invariant: no character of a file or of its name reaches the output unless it is printable, so that no file can
drive a terminal; what is not printable is shown as an escape such as `\\x1b`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from unicodedata import combining, east_asian_width

from sparsec.diagnostics.model import Diagnostic, Severity

_WIDTH = 100  # columns of source text that are shown of a long line
_BEFORE = 40  # characters that are kept before the span there
_TAB = "    "
_STYLES = {"error": "1;31", "warning": "1;33", "bold": "1", "frame": "1;34"}


def render_text(diagnostics: Iterable[Diagnostic], *, color: bool = False) -> str:
    """One paragraph a record, in file order: place, code, message, source line with carets, notes and hint.

    Without a final newline; empty if there are no records.
    """
    return "\n\n".join(_paragraph(diagnostic, color) for diagnostic in in_file_order(diagnostics))


def render_json(diagnostics: Iterable[Diagnostic]) -> str:
    """A JSON list of objects: code, severity, message, hint, notes, filename, location and end_location.

    Rows and columns count from 1, columns in characters; the end is exclusive.
    """
    return json.dumps([_record(diagnostic) for diagnostic in in_file_order(diagnostics)], indent=2)


def in_file_order(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """By file, as these come, and by place."""
    records = list(diagnostics)
    files: dict[str, int] = {}
    for record in records:
        files.setdefault(record.source.name, len(files))
    return sorted(records, key=lambda record: (files[record.source.name], record.span.start, record.span.stop))


def _record(diagnostic: Diagnostic) -> dict[str, object]:
    source, stop = diagnostic.source, diagnostic.span.stop
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity.value,
        "message": diagnostic.message,
        "hint": diagnostic.hint,
        "notes": list(diagnostic.notes),
        "filename": source.name,
        "location": {"row": diagnostic.line, "column": diagnostic.column},
        "end_location": {"row": source.line_of(stop), "column": source.column_of(stop)},
    }


def _paragraph(diagnostic: Diagnostic, color: bool) -> str:
    def styled(style: str, text: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if color else text

    severity = diagnostic.severity.value
    place = f"{_visible(diagnostic.source.name)}:{diagnostic.line}:{diagnostic.column}"
    label = styled("error" if diagnostic.severity is Severity.ERROR else "warning", f"{severity}[{diagnostic.code}]")
    number = str(diagnostic.line)
    margin = " " * len(number)
    bar = styled("frame", "|")
    text, indent, carets = _excerpt(diagnostic)
    lines = [
        f"{place}: {label}: {styled('bold', _visible(diagnostic.message))}",
        f"{margin} {bar}",
        f"{styled('frame', number)} {bar} {text}".rstrip(),
        f"{margin} {bar} {' ' * indent}{styled(severity, '^' * carets)}",
    ]
    equals = styled("frame", "=")
    lines += [f"{margin} {equals} {styled('bold', 'note')}: {_visible(note)}" for note in diagnostic.notes]
    if diagnostic.hint is not None:
        lines.append(f"{margin} {equals} {styled('bold', 'help')}: {_visible(diagnostic.hint)}")
    return "\n".join(lines)


def _excerpt(diagnostic: Diagnostic) -> tuple[str, int, int]:
    """The source line, clipped around the span, the columns before the carets, and the number of carets."""
    line = diagnostic.source.line_text(diagnostic.line)
    start = min(diagnostic.column - 1, len(line))
    stop = min(start + max(1, diagnostic.span.stop - diagnostic.span.start), max(len(line), start + 1))
    first = start - _BEFORE if len(line) > _WIDTH and start > _BEFORE else 0
    last = first + _WIDTH
    head, tail = ("..." if first else ""), ("..." if last < len(line) else "")
    shown = [_cell(char) for char in line[first:last]]
    text = "".join(shown)
    indent = len(head) + sum(_columns(cell) for cell in shown[: start - first])
    carets = sum(_columns(cell) for cell in shown[start - first : stop - first])
    return f"{head}{text}{tail}", indent, max(1, carets)


def _cell(char: str) -> str:
    if char == "\t":
        return _TAB
    return char if char.isprintable() else _escape(char)


def _visible(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{{{code:x}}}"


def _columns(cell: str) -> int:
    """The columns that a terminal gives to printable text."""
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in cell)
