"""Every bad head table in `tables` has the text of its diagnostics in a `.err` file; every code has such a table."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import pytest

from sparsec.diagnostics.codes_meaning import MEANING_CODES
from sparsec.diagnostics.codes_tables import TABLE_CODES
from sparsec.diagnostics.model import Diagnostic, DiagnosticError
from sparsec.diagnostics.render import render_text
from sparsec.imports.duo import Streaming, duo_model
from sparsec.imports.minference import minference_model
from sparsec.imports.table import read_table

TABLES = sorted(path for path in (Path(__file__).parent / "tables").iterdir() if path.suffix != ".err")
HEAD = '["stream_llm", 1, 1, 1]'
BUILT = {
    "E701.tsv": "0" * (1 << 21),
    "E701.json": " " * (1 << 21),
    "E703.tsv": "9" * 1_000_000 + "x",
    "E706.json": "[" + "9" * 500_000 + "." + "9" * 500_000 + "x",
    "E706_string.json": '["' + "\\u0041x" * 150_000,
    "E705_layers.tsv": "0\n" * 4097,
    "E705_groups.tsv": "0\t" * 4096 + "1",
    "E705.json": "[" + f'{{"0": {HEAD}}},' * 4096 + f'{{"0": {HEAD}}}]',
    "E712.tsv": "".join("\t".join(str((n * m * 7919 + n) % 10 / 10) for m in range(120)) + "\n" for n in range(2000)),
}
"""Tables over a limit are made by the test, not kept."""


def problems(path: Path) -> tuple[Diagnostic, ...]:
    with pytest.raises(DiagnosticError) as raised:
        source = read_table(path, path.name)
        if path.suffix == ".json":
            minference_model(source)
        else:
            duo_model(source, Fraction(1, 2), Streaming(128, 256), None)
    return raised.value.diagnostics


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_golden(path: Path, update_golden: bool) -> None:
    found = problems(path)
    text = render_text(found) + "\n"
    expected = path.with_name(f"{path.name}.err")
    if update_golden:
        expected.write_text(text)
    assert text == expected.read_text()
    assert path.stem[:4] in {diagnostic.code for diagnostic in found}


@pytest.mark.parametrize("name", BUILT)
def test_limits(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(BUILT[name])
    start = time.monotonic()
    assert [diagnostic.code for diagnostic in problems(path)] == [name[:4]]
    assert time.monotonic() - start < 10  # the limit is 2 s on an idle machine


def test_every_code_has_a_table() -> None:
    codes = [code.code for code in TABLE_CODES]
    assert sorted(set(codes)) == codes, "codes stand in order, each once"
    assert not set(codes) & {code.code for code in MEANING_CODES}
    assert set(codes) <= {path.name[:4] for path in TABLES} | {name[:4] for name in BUILT}
