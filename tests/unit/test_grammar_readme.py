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
from sparsec.sema.node import BUILT_IN_VALUES, TERMS
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


def test_terms_and_names_are_listed() -> None:
    for term in TERMS:
        assert re.search(rf"^\| .*`{term}\b", TEXT, flags=re.MULTILINE), term
    for name in BUILT_IN_VALUES:
        assert f"`{name}`" in TEXT, name
    assert f"{MAX_TOKENS} tokens" in TEXT
