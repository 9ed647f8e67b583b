"""Texts that import others: no false problem, theirs at the import, values and pictures of what they use."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsec.cli.lsp import page_of
from sparsec.diagnostics.source import Span
from sparsec.editor.document import Document, Settings
from sparsec.editor.edits import RenameError, applied, fixes, rename
from sparsec.editor.hover import hover_at
from sparsec.editor.live import pattern_share
from sparsec.syntax.imports import Imports

BASE = "pattern local(n = 64) { heads 2 kv 2  causal  attend window(n) }\n"
TEXT = 'import "base.sparse" as base\npattern p { heads 2 kv 2  causal  attend base.local(n = 32) | sink(4) }\n'


@pytest.fixture
def document(tmp_path: Path) -> Document:
    (tmp_path / "base.sparse").write_text(BASE, encoding="utf-8")
    return Document(str(tmp_path / "mine.sparse"), TEXT, Imports.of_file(tmp_path / "mine.sparse"))


def test_what_a_text_imports_is_known(document: Document) -> None:
    assert document.diagnostics == ()
    share = pattern_share(document, "p", Settings(seq_len=1024))
    assert share is not None and share.exact
    assert (page := page_of(document, "p", Settings(seq_len=1024))) is not None and "<svg" in page
    for offset in range(len(TEXT)):
        hover_at(document, offset, Settings())


def test_a_problem_of_an_imported_file_stands_at_the_import(document: Document, tmp_path: Path) -> None:
    (tmp_path / "base.sparse").write_text("\n" + BASE.replace("window", "windw"), encoding="utf-8")
    found = Document(document.source.name, TEXT, document.imports).diagnostics
    assert found and all(each.source.name == document.source.name for each in found)
    told = [each for each in found if "base.sparse, line 2: " in each.message]
    assert told and all(TEXT[each.span.start : each.span.stop].startswith("import") for each in told)


def test_a_text_without_a_folder_is_told_so(document: Document) -> None:
    (problem,) = [each for each in Document("untitled", TEXT).diagnostics if each.code == "E017"]
    assert TEXT[problem.span.start : problem.span.stop].startswith("import")


def test_fixes_of_a_text_that_imports(document: Document) -> None:
    text = TEXT.replace("sink", "snk")
    broken = Document(document.source.name, text, document.imports)
    found = fixes(broken, Span(0, len(text)), 60)
    assert [(fix.diagnostic.code, applied(text, (fix.edit,))) for fix in found] == [("E101", TEXT)]


def test_a_name_does_not_take_the_place_of_an_imported_one(document: Document) -> None:
    for plain in (False, True):
        text = TEXT.replace(" as base", "").replace("base.local", "local") if plain else TEXT
        here = Document(document.source.name, text, document.imports)
        offset = text.index("p {")
        with pytest.raises(RenameError, match="that an import brings"):
            rename(here, offset, "local" if plain else "base")
        assert len(rename(here, offset, "base" if plain else "local")) == 1
    gone = TEXT.replace("base.sparse", "gone.sparse").replace(" as base", "").replace("base.local", "local")
    with pytest.raises(RenameError, match="line 2 uses `local`, which nothing defines"):
        rename(Document(document.source.name, gone, document.imports), gone.index("p {"), "local")
