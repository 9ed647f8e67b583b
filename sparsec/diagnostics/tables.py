"""Rows of cells -> an aligned table as text: the first column to the left, the others to the right."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A header, a rule and the rows; every row is as long as `head`."""
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    return "\n".join([line(head), "  ".join("-" * width for width in widths), *map(line, rows)])


def count(number: int, what: str, several: str = "") -> str:
    """`1 file`, `2 files`; `several` where the plural takes more than an s."""
    return f"{number} {what if number == 1 else several or what + 's'}"


def duration(seconds: float) -> str:
    """Three significant digits: `79.1 ms`, `1.24 s`."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def percent(fraction: float) -> str:
    """Three significant digits: `12.5%`."""
    return f"{fraction * 100:.3g}%"
