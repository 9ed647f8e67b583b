"""The record of one problem in a file, and the errors that carry such records. Only `diagnostics.render` makes text."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sparsec.diagnostics.source import SourceFile, Span


class Severity(Enum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One problem: a stable `code` (E101, W301), the smallest offending span, a sentence, and what to write instead.

    `notes` state facts (another place, a value that was computed); `hint` gives an action.
    """

    code: str
    severity: Severity
    source: SourceFile
    span: Span
    message: str
    hint: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        source, span = self.source.of_part(self.span)  # of files that are joined the one that has it
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "span", span)

    @property
    def line(self) -> int:
        return self.source.line_of(self.span.start)

    @property
    def column(self) -> int:
        return self.source.column_of(self.span.start)


class SparsecError(Exception):
    """Base of every error that sparsec raises for a caller's mistake or for what the machine cannot do."""


class DiagnosticError(SparsecError):
    """A file has errors. `diagnostics` holds every record, warnings included; `str()` is the rendered text."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__(diagnostics)
        self.diagnostics = diagnostics

    def __str__(self) -> str:
        from sparsec.diagnostics.render import render_text

        return render_text(self.diagnostics)


class CallError(SparsecError, ValueError):
    """A call with a wrong argument; the message gives the expected and the actual value."""


class InternalError(SparsecError):
    """A broken invariant of sparsec itself; the message names the invariant."""


def in_one_line(error: BaseException) -> str:
    """Its type and the first line of what it says, at most 200 characters."""
    reason = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {reason}"[:200]
