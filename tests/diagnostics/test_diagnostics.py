"""Every bad file beside this test has the text of its diagnostics in a `.err` file; every code has such a file."""

from __future__ import annotations

import inspect
import re
import time
from pathlib import Path

import pytest

from sparsec import program
from sparsec.diagnostics import codes_text
from sparsec.diagnostics.codes_meaning import MEANING_CODES
from sparsec.diagnostics.model import Diagnostic, DiagnosticError, Severity
from sparsec.diagnostics.render import render_text
from sparsec.syntax.imports import Imports, from_disk
from sparsec.syntax.parser import read_source

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.sparse"))
# Files over a limit are built by the test, not kept.
BUILT = {
    "E003": b"#" * (2**20 + 1),
    "E004": b"pattern p { attend full }\n" + b"param a = 1\n" * 80_000,
    "E020": b'import "chain1.sparse"\n',
}


def text_codes() -> set[str]:
    functions = inspect.getmembers(codes_text, inspect.isfunction)
    return {match[0] for _, function in functions if (match := re.match(r"E\d\d\d", function.__doc__ or ""))}


def problems(name: str, data: bytes) -> tuple[Diagnostic, ...]:
    source, found = read_source(name, data)
    if source is None:
        return found
    checked, found = program.check(source, Imports(read_beside, str(HERE / name)))
    if checked is None or any(diagnostic.severity is Severity.ERROR for diagnostic in found):
        return found
    return found + (cache_problems(name, data) if name[:4] in ("E502", "W605") else ())


def read_beside(path: str) -> tuple[str, bytes]:
    """A file of this folder, or of a chain of files in which each imports the next."""
    if chain := re.fullmatch(r"chain(\d+)\.sparse", path):
        return path, f'import "chain{int(chain[1]) + 1}.sparse"\npattern p{chain[1]} {{ attend full }}\n'.encode()
    return from_disk(HERE / "main.sparse")(path)


def cache_problems(name: str, data: bytes) -> tuple[Diagnostic, ...]:
    """What making a KV cache says of each pattern of a file."""
    file = program.parse(data.decode(), name)
    found: list[Diagnostic] = []
    for pattern in map(file.pattern, file.patterns):
        try:
            found += pattern.cache_warnings()
        except DiagnosticError as error:
            found += error.diagnostics
    return tuple(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path, update_golden: bool) -> None:
    found = problems(path.name, path.read_bytes())
    text = render_text(found) + "\n"
    expected = path.with_suffix(".err")
    if update_golden:
        expected.write_text(text)
    assert text == expected.read_text()
    assert path.stem[:4] in {diagnostic.code for diagnostic in found}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_load_raises_for_errors_alone(path: Path) -> None:
    if path.stem.startswith(("W", "E5")):
        program.load(path)
    else:
        with pytest.raises(DiagnosticError) as raised:
            program.load(path)
        assert path.stem[:4] in str(raised.value)


@pytest.mark.parametrize("code", BUILT)
def test_limits(code: str) -> None:
    start = time.monotonic()
    found = problems("big.sparse", BUILT[code])
    assert [diagnostic.code for diagnostic in found] == [code]
    assert render_text(found)
    assert time.monotonic() - start < 10  # the limit is 2 s on an idle machine


def test_every_code_has_a_file() -> None:
    known = {code.code for code in MEANING_CODES} | text_codes()
    assert known == {path.stem[:4] for path in FILES} | set(BUILT)


def test_codes_are_distinct() -> None:
    codes = [code.code for code in MEANING_CODES]
    assert sorted(set(codes)) == codes, "codes stand in order, each once"
    assert not set(codes) & text_codes()
