"""The language reference: each of its examples checks as it says, and its tables are those of the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from sparsec import program
from sparsec.diagnostics import codes_text
from sparsec.diagnostics.codes_meaning import MEANING_CODES
from sparsec.diagnostics.source import SourceFile
from sparsec.sema.builtins import FUNCTIONS, TERMS, VALUES, usage
from sparsec.sema.modifiers import ENTRIES, Takes
from sparsec.syntax.lexer import MAX_TOKENS

README = Path(__file__).parents[2] / "grammar" / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sparse(?: error (\w+))?\n(.*?)```", TEXT, flags=re.DOTALL)
MARKERS = re.compile(r"(?<=<!-- codes -->\n).*?(?=<!-- /codes -->)", flags=re.DOTALL)


def code_table() -> str:
    rows = {code.code: code.meaning for code in MEANING_CODES}
    for _, function in inspect.getmembers(codes_text, inspect.isfunction):
        if match := re.match(r"(E\d{3}): (.+?)\.?$", (function.__doc__ or "").split("\n")[0]):
            rows[match[1]] = match[2]
    lines = [f"| {code} | {rows[code]} |\n" for code in sorted(rows)]
    return "".join(["| code | reports |\n|---|---|\n", *lines])


@pytest.mark.parametrize(("code", "text"), BLOCKS, ids=[f"block{n}" for n in range(len(BLOCKS))])
def test_example(code: str, text: str) -> None:
    _, found = program.check(SourceFile("README.md", text))
    codes = {diagnostic.code for diagnostic in found}
    if code:
        assert codes == {code}
    else:
        assert not any(found.startswith("E") for found in codes)


def test_blocks_are_found() -> None:
    assert len(BLOCKS) >= 15
    assert TEXT.count("```") == 2 * len(BLOCKS)


def test_code_table(update_golden: bool) -> None:
    if update_golden:
        README.write_text(MARKERS.sub(lambda _: code_table(), TEXT), encoding="utf-8")
    found = MARKERS.search(README.read_text(encoding="utf-8"))
    assert found is not None
    assert found[0] == code_table()


def first_cells(heading: str) -> list[str]:
    """What stands in backticks in the first column of the table that follows."""
    rows = re.search(rf"^{re.escape(heading)}\n(?:\|.*\n)+", TEXT, flags=re.MULTILINE)
    assert rows is not None, heading
    return [code for row in rows[0].split("\n")[2:] for code in re.findall("`([^`]+)`", row.split(" | ")[0])]


def test_the_table_of_terms() -> None:
    """Each term with its arguments; the last row of a term has all of them."""
    listed = {re.match(r"\w+", cell)[0]: cell for cell in first_cells("| term | tokens | blocks (lengths with `b`) |")}  # type: ignore[index]
    assert list(listed) == list(TERMS)
    for name, term in TERMS.items():
        options = [slot.name for slot in term.slots if slot.by_name]
        assert re.findall(r"(\w+) =", listed[name]) == options, name
        assert ("(" in listed[name]) == bool(term.slots), name


def test_the_tables_of_functions_and_values() -> None:
    assert [cell for cell in first_cells("| operators | on |") if "(" in cell] == [usage(name) for name in FUNCTIONS]
    assert first_cells("| name | value | where |") == list(VALUES)


def test_the_score_statements() -> None:
    statements = first_cells("| statement | meaning |")
    first = statements.index("scale")
    assert tuple(statements[first : first + 1 + len(ENTRIES)]) == ("scale", *ENTRIES)
    section = TEXT[TEXT.index("## The score") :]
    for keyword, entry in ENTRIES.items():
        written = {Takes.NUMBER: f"`{keyword} x`", Takes.NUMBERS_OF_HEADS: f"`{keyword} ["}.get(entry.takes)
        assert (written or f"`{keyword}`") in section, keyword


def test_limits_are_those_of_the_code() -> None:
    assert f"{MAX_TOKENS} tokens" in TEXT
