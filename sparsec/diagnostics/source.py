"""Source text and the places in it: what every diagnostic points at.

Invariant: a Span is half-open in characters of `SourceFile.text`; lines and columns are 1-based and derived.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, stop) of the source text."""

    start: int
    stop: int

    def to(self, other: Span) -> Span:
        """The span from the start of this one to the end of `other`."""
        return Span(self.start, max(self.stop, other.stop))


@dataclass(frozen=True)
class SourceFile:
    """A named source text. `name` is shown in diagnostics and never reaches generated code."""

    name: str
    text: str
    _line_starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts = [0] + [n + 1 for n, char in enumerate(self.text) if char == "\n"]
        object.__setattr__(self, "_line_starts", tuple(starts))

    def line_of(self, offset: int) -> int:
        """The 1-based line that holds the character at `offset`."""
        return bisect_right(self._line_starts, offset)

    def column_of(self, offset: int) -> int:
        """The 1-based column, in characters, of the character at `offset`."""
        return offset - self._line_starts[self.line_of(offset) - 1] + 1

    def line_text(self, line: int) -> str:
        """The text of the 1-based `line`, without its newline."""
        start = self._line_starts[line - 1]
        stop = self._line_starts[line] - 1 if line < len(self._line_starts) else len(self.text)
        return self.text[start:stop].rstrip("\r")

    def of_part(self, span: Span) -> tuple[SourceFile, Span]:
        """The file that has the span, and where it is there."""
        return self, span

    def offset_of(self, part: SourceFile, offset: int) -> int:
        """Where the character at `offset` of a file is here."""
        return offset


@dataclass(frozen=True)
class JoinedSource(SourceFile):
    """The texts of several files one after the other; its lines and columns are those of the files.

    `parts`: where each starts, the first at 0; a span lies in one of them.
    """

    parts: tuple[tuple[int, SourceFile], ...]

    def _part(self, offset: int) -> tuple[int, SourceFile]:
        return self.parts[bisect_right([start for start, _ in self.parts], offset) - 1]

    def line_of(self, offset: int) -> int:
        """In its own file."""
        start, part = self._part(offset)
        return part.line_of(offset - start)

    def column_of(self, offset: int) -> int:
        """In its own file."""
        start, part = self._part(offset)
        return part.column_of(offset - start)

    def of_part(self, span: Span) -> tuple[SourceFile, Span]:
        start, part = self._part(span.start)
        return part, Span(span.start - start, span.stop - start)

    def offset_of(self, part: SourceFile, offset: int) -> int:
        return next((start for start, each in self.parts if each is part), 0) + offset

    @property
    def first(self) -> SourceFile:
        """The file that imports the others."""
        return self.parts[0][1]
