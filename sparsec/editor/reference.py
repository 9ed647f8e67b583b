"""What the language reference says about a word: its rows in the tables of `grammar/README.md`, and its sentences.

The formula of a term stands there and nowhere else. Invariant: what comes back is text of the reference, unchanged but
for line breaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from sparsec._resources import read_data

PAGE = "grammar/README.md"
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_TABLE = re.compile(r"^(\|.*\|\n)\|[-|]+\|\n((?:\|.*\|\n)+)", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_WORD = re.compile(r"[A-Za-z_]\w*")
_CELL = re.compile(r"(?<!\\)\|")
_SENTENCES = 2  # of the prose, that are shown of a word


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: what its first cell writes, and the other cells by the heads of their columns."""

    table: str
    written: str
    cells: tuple[tuple[str, str], ...]


@cache
def _page() -> str:
    return _FENCE.sub("", read_data(PAGE))


@cache
def rows() -> tuple[Row, ...]:
    """The rows of every table, in the order of the page; `table` is the head of its first column."""
    return tuple(_rows())


def _rows() -> Iterator[Row]:
    for table in _TABLE.finditer(_page()):
        head = _cells(table[1])
        for line in table[2].splitlines():
            first, *others = _cells(line)
            yield Row(head[0], first, tuple(zip(head[1:], others, strict=False)))


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in _CELL.split(line.strip()[1:-1])]


@cache
def _by_word() -> dict[tuple[str, str], tuple[Row, ...]]:
    found: dict[tuple[str, str], tuple[Row, ...]] = {}
    for row in rows():
        for code in _CODE.findall(row.written):
            for word in dict.fromkeys(_WORD.findall(code)):
                key = (row.table, word)
                if row not in found.get(key, ()):
                    found[key] = (*found.get(key, ()), row)
    return found


def table_rows(table: str, word: str) -> tuple[Row, ...]:
    """The rows of a table whose first cell has the word in a piece of code, those that begin with it first."""
    found = _by_word().get((table, word), ())
    leading = [
        row for row in found if any(code.split("(")[0].split()[0] == word for code in _CODE.findall(row.written))
    ]
    return tuple(leading) or found


@cache
def _sentences() -> tuple[str, ...]:
    prose = re.sub(r"^(\||#|>|- ).*$", "", _page(), flags=re.MULTILINE)
    paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", prose))
    return tuple(each for paragraph in paragraphs for each in re.split(r"(?<=[.:])\s+(?=[A-Z`])", paragraph) if each)


@cache
def sentences_of(word: str) -> tuple[str, ...]:
    """The sentences of the page about a word: those that begin with it as code, else those that write it with more."""
    leading = [each for each in _sentences() if re.match(rf"`{re.escape(word)}\b", each)]
    written = [each for each in _sentences() if re.search(rf"`{re.escape(word)} [^`]", each)]
    return tuple((leading or written)[:_SENTENCES])


def about(word: str, *tables: str) -> tuple[str, ...]:
    """Lines of Markdown: what the tables, by the heads of their first columns, and the sentences say of the word."""
    lines = []
    for table in tables:
        for row in table_rows(table, word):
            cells = [f"{head}: {_formula(cell)}" for head, cell in row.cells if cell]
            lines.append(f"{row.written}: {'; '.join(cells)}")
    return (*lines, *(_escaped(sentence) for sentence in sentences_of(word)))


def _formula(cell: str) -> str:
    return f"`{cell}`" if "`" not in cell and re.search("[<=>%]", cell) else _escaped(cell)


def _escaped(text: str) -> str:
    """Prose in which signs outside of code are no Markdown."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<])", r"\\\1", part) for part in parts)
