"""Offsets of a text <-> lines and columns as the Language Server Protocol counts them.

Invariant: `place` of an offset, read by `offset`, is that offset, unless it lies within a line end or a character.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from enum import Enum

_LINE_END = re.compile(r"\r\n|\n|\r")


class Encoding(Enum):
    """The units that a column counts, by the name that the protocol gives them."""

    UTF8 = "utf-8"
    UTF16 = "utf-16"
    UTF32 = "utf-32"

    def units(self, text: str) -> int:
        """The length of `text`; a lone surrogate counts as the unit that it is."""
        match self:
            case Encoding.UTF32:
                return len(text)
            case Encoding.UTF16:
                return len(text) if text.isascii() else sum(1 + (char > "\uffff") for char in text)
            case Encoding.UTF8:
                return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class LineIndex:
    """The lines of a text, from 0; a line ends with a line feed, a carriage return, or both."""

    def __init__(self, text: str, encoding: Encoding = Encoding.UTF16) -> None:
        self.text = text
        self.encoding = encoding
        ends = list(_LINE_END.finditer(text))
        self._starts = [0, *(end.end() for end in ends)]
        self._stops = [*(end.start() for end in ends), len(text)]

    def offset(self, line: int, column: int) -> int:
        """The offset of a place; one beyond its line is at the line's end, one beyond the text at the text's."""
        if line >= len(self._starts):
            return len(self.text)
        if line < 0:
            return 0
        start, stop = self._starts[line], self._stops[line]
        if self.text.isascii() or self.encoding is Encoding.UTF32:
            return min(start + max(column, 0), stop)
        offset, left = start, column
        while offset < stop and (left := left - self.encoding.units(self.text[offset])) >= 0:
            offset += 1
        return offset

    def place(self, offset: int) -> tuple[int, int]:
        """The line and the column of an offset."""
        line = bisect_right(self._starts, offset) - 1
        start = self._starts[line]
        return line, self.encoding.units(self.text[start : min(offset, self._stops[line])])

    def line_of(self, offset: int) -> int:
        return bisect_right(self._starts, offset) - 1

    def line_stop(self, line: int) -> int:
        """The offset of the end of a line, before what ends it."""
        return self._stops[line]
