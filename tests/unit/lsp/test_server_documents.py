"""The texts of the language server whose addresses lead to no file."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

pytest.importorskip("pygls")

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from sparsec.editor.document import Document, Settings
from sparsec.editor.positions import Encoding, LineIndex
from sparsec.lsp.answers import Answers
from sparsec.lsp.server import SparseServer, document_of, make_server

TEXT = 'import "a.sparse"\npattern p { attend full }\n'


def test_an_address_that_leads_to_no_file_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for uri in ((tmp_path / "loop/x.sparse").as_uri(), f"{tmp_path.as_uri()}/%00.sparse", "untitled:x"):
        assert [each.code for each in document_of(uri, TEXT).diagnostics] == ["E017"], uri
    (tmp_path / "a.sparse").write_text("pattern q { attend full }\n")
    assert document_of((tmp_path / "x.sparse").as_uri(), TEXT).diagnostics == ()


def test_a_saved_file_has_the_texts_that_import_looked_at_again(tmp_path: Path) -> None:
    async def drive() -> None:
        server = SparseServer(Settings(), lambda *_: "")
        server.open |= {"file:///a.sparse", "file:///b.sparse"}
        looked: list[str] = []
        server.look = looked.append  # type: ignore[method-assign]  # no client is there to be told
        for uri, text in (("file:///a.sparse", TEXT), ("file:///b.sparse", "pattern p { attend full }")):
            server._answers[uri] = Answers(uri, Document(uri, text), LineIndex(text, Encoding.UTF16))
        server.look_at_importers()
        assert looked == ["file:///a.sparse"] and set(server._answers) == {"file:///b.sparse"}
        server.close()

    asyncio.run(drive())


def test_pictures_of_equal_names_are_files_of_their_own() -> None:
    server = SparseServer(Settings(), lambda *_: "")
    first, second = (server.saved(uri, uri, "p") for uri in ("file:///a.sparse", "file:///b.sparse"))
    assert first.read_text() == "file:///a.sparse" and second.read_text() == "file:///b.sparse"
    assert first.name == second.name == "p.html" and len(list(first.parent.iterdir())) == 1
    server.close()
    assert not first.exists()


def test_a_refusal_leaves_no_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    make_server(Settings(), lambda *_: "").close()
    log = logging.getLogger("pygls.protocol.json_rpc")
    for error in (JsonRpcException(message="no", code=1), ValueError("a fault")):
        log.error("in a request", exc_info=error)
    log.warning("no error at all")
    assert [record.message for record in caplog.records] == ["in a request", "no error at all"]
    assert "a fault" in caplog.text and "JsonRpcException" not in caplog.text


def test_a_name_that_an_import_brings_leads_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    base, text = (
        tmp_path / "sub/base.sparse",
        'import "sub/base.sparse" as base\npattern p { attend base.q | base.q(n = 2) }\n',
    )
    base.write_text("# π\npattern q(n = 1) { attend window(n) }\n", encoding="utf-8")
    uri = (tmp_path / "x.sparse").as_uri()
    answers = Answers(uri, document_of(uri, text), LineIndex(text, Encoding.UTF16))
    there = types.Location(base.as_uri(), types.Range(types.Position(1, 8), types.Position(1, 9)))
    at = types.Position(1, text.splitlines()[1].index("base.q") + 1)
    assert answers.definition(at) == there
    assert [each.uri for each in answers.references(at, declaration=True)] == [there.uri, uri, uri]
    assert len(answers.references(at, declaration=False)) == len(answers.highlights(at)) == 2
    keyword = types.Position(1, 0)
    assert answers.definition(keyword) is None and answers.references(keyword, declaration=True) == []
