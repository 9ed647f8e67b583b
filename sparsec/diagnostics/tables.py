"""Rows of cells -> a table, as aligned text or in HTML; and numbers as tables have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


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


def table_html(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table under a title."""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<table><caption>{escape(title)}</caption><tr>{header}</tr>{body}</table>"


def count(number: int, what: str, several: str = "") -> str:
    """`1 file`, `2 files`; `several` where the plural takes more than an s."""
    return f"{number} {what if number == 1 else several or what + 's'}"


def duration(seconds: float) -> str:
    """Three significant digits: `79.1 ms`, `1.24 s`."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def in_memory(nbytes: float) -> str:
    """Three significant digits, in powers of 1024, as memory is counted: `1.5 MiB`."""
    return _in_units(nbytes, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def in_traffic(nbytes: float) -> str:
    """Three significant digits, in powers of 1000, as bandwidths are: `1.5 MB`."""
    return _in_units(nbytes, 1000, ("B", "kB", "MB", "GB", "TB"))


def _in_units(amount: float, step: int, units: Sequence[str]) -> str:
    for unit in units[:-1]:
        if amount < step:
            return f"{amount:.3g} {unit}"
        amount /= step
    return f"{amount:.3g} {units[-1]}"


def percent(fraction: float) -> str:
    """Three significant digits: `12.5%`."""
    return f"{fraction * 100:.3g}%"
