"""The page of `sparsec import` lists the codes as they are."""

from __future__ import annotations

import re
from pathlib import Path

import sparsec.imports
from sparsec.diagnostics.codes_tables import TABLE_CODES

README = Path(sparsec.imports.__file__).with_name("README.md")


def test_the_table_of_codes() -> None:
    rows = re.findall(r"^\| (E\d+) \| (.*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(code.code, code.meaning) for code in TABLE_CODES]
