"""The texts of the language server whose addresses lead to no file."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pygls")

from sparsec.lsp.server import document_of

TEXT = 'import "a.sparse"\npattern p { attend full }\n'


def test_an_address_that_leads_to_no_file_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for uri in ((tmp_path / "loop/x.sparse").as_uri(), f"{tmp_path.as_uri()}/%00.sparse", "untitled:x"):
        assert [each.code for each in document_of(uri, TEXT).diagnostics] == ["E017"], uri
    (tmp_path / "a.sparse").write_text("pattern q { attend full }\n")
    assert document_of((tmp_path / "x.sparse").as_uri(), TEXT).diagnostics == ()
