"""A session with the language server, driven by a client over pipes: what an editor does from start to end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

pytestmark = pytest.mark.kernels

URI = "file:///somewhere/s%20.sparse"
TEXT = """\
# Sees near keys: 𝒩 marks a character of two UTF-16 units.
pattern near(reach = 4b) { causal  attend window(reach) | stride(8b, phase = -g) }

pattern outer { heads 8 kv 8  attend near(reach = 2b) }
"""


class Client(LanguageClient):
    """Gathers what the server says by itself."""

    def __init__(self) -> None:
        super().__init__("tests", "1")
        self.published: asyncio.Queue[types.PublishDiagnosticsParams] = asyncio.Queue()
        self.shown: list[types.ShowDocumentParams] = []
        self.messages: list[str] = []

        @self.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def publish(params: types.PublishDiagnosticsParams) -> None:
            self.published.put_nowait(params)

        @self.feature(types.WINDOW_SHOW_DOCUMENT)
        def show(params: types.ShowDocumentParams) -> types.ShowDocumentResult:
            self.shown.append(params)
            return types.ShowDocumentResult(success=True)

        @self.feature(types.WINDOW_SHOW_MESSAGE)
        def message(params: types.ShowMessageParams) -> None:
            self.messages.append(params.message)

    async def problems(self) -> types.PublishDiagnosticsParams:
        return await asyncio.wait_for(self.published.get(), 20)


async def begin(client: Client, options: dict[str, Any] | None = None) -> types.InitializeResult:
    await client.start_io(sys.executable, "-m", "sparsec", "lsp")
    able = types.ClientCapabilities(
        text_document=types.TextDocumentClientCapabilities(
            completion=types.CompletionClientCapabilities(
                completion_item=types.ClientCompletionItemOptions(snippet_support=True)
            )
        ),
        window=types.WindowClientCapabilities(show_document=types.ShowDocumentClientCapabilities(support=True)),
    )
    started = await client.initialize_async(types.InitializeParams(able, initialization_options=options))
    client.initialized(types.InitializedParams())
    return started


def session(drive: Callable[[Client], Coroutine[Any, Any, None]]) -> Client:
    """Runs a session to the end of the server's process, which has to come by itself."""
    client = Client()

    async def whole() -> None:
        try:
            await drive(client)
            await client.shutdown_async(None)
            client.exit(None)
            process = client._server
            assert process is not None
            assert await asyncio.wait_for(process.wait(), 20) == 0
        finally:
            if client._server is not None and client._server.returncode is None:
                client._server.kill()
            with suppress(Exception):
                await asyncio.wait_for(client.stop(), 5)

    asyncio.run(asyncio.wait_for(whole(), 60))
    return client


def opened(client: Client, text: str = TEXT) -> None:
    client.text_document_did_open(types.DidOpenTextDocumentParams(types.TextDocumentItem(URI, "sparse", 1, text)))


def changed(client: Client, text: str, version: int) -> None:
    whole = types.TextDocumentContentChangeWholeDocument(text)
    client.text_document_did_change(
        types.DidChangeTextDocumentParams(types.VersionedTextDocumentIdentifier(version, URI), [whole])
    )


def position(text: str, mark: str, within: int = 0) -> types.Position:
    """The place of `mark` in a text, as UTF-16 counts."""
    before = text[: text.index(mark) + within]
    line = before.split("\n")[-1]
    return types.Position(before.count("\n"), len(line.encode("utf-16-le")) // 2)


def edited(text: str, edits: list[types.TextEdit]) -> str:
    """The text after edits that the client was told."""
    lines = text.split("\n")

    def offset(at: types.Position) -> int:
        inside = lines[at.line].encode("utf-16-le")[: 2 * at.character].decode("utf-16-le")
        return sum(len(line) + 1 for line in lines[: at.line]) + len(inside)

    for edit in sorted(edits, key=lambda each: (each.range.start.line, each.range.start.character), reverse=True):
        text = text[: offset(edit.range.start)] + edit.new_text + text[offset(edit.range.end) :]
    return text


DOCUMENT = types.TextDocumentIdentifier(URI)


def test_a_session_from_open_to_shutdown() -> None:
    async def drive(client: Client) -> None:
        started = await begin(client)
        server = started.capabilities
        assert server.position_encoding == types.PositionEncodingKind.Utf16
        for able in ("hover_provider", "completion_provider", "definition_provider", "references_provider"):
            assert getattr(server, able), able
        for able in ("rename_provider", "document_formatting_provider", "semantic_tokens_provider"):
            assert getattr(server, able), able
        assert server.code_action_provider and server.inlay_hint_provider and server.signature_help_provider

        opened(client)
        assert [each.code for each in (await client.problems()).diagnostics] == []

        mistake = TEXT.replace("stride(8b", "strid(8b")
        changed(client, mistake, 2)
        found = await client.problems()
        (problem,) = found.diagnostics
        assert (found.version, problem.code, problem.severity) == (2, "E101", types.DiagnosticSeverity.Error)
        assert "did you mean `stride`?" in problem.message
        assert problem.range.start == position(mistake, "strid(")

        context = types.CodeActionContext(found.diagnostics)
        (action,) = await client.text_document_code_action_async(
            types.CodeActionParams(DOCUMENT, problem.range, context)
        )
        assert edited(mistake, action.edit.changes[URI]) == TEXT and action.is_preferred

        hover = await client.text_document_hover_async(types.HoverParams(DOCUMENT, position(mistake, "window(")))
        assert "0 <= qb - kb < n" in hover.contents.value and "window(4b)" in hover.contents.value

        half = mistake.replace("kv 8  attend near(reach = 2b) }", "kv 2  attend ne")
        changed(client, half, 3)
        at = position(half, "attend ne\n", len("attend ne"))
        offered = await client.text_document_completion_async(types.CompletionParams(DOCUMENT, at))
        labels = {item.label: item for item in offered.items}
        assert {"near", "window", "causal"} <= labels.keys() and "outer" not in labels
        assert labels["window"].text_edit.new_text == "window(${1:n})"
        assert (await client.problems()).version == 3

        changed(client, TEXT, 4)
        assert not (await client.problems()).diagnostics
        inner = position(TEXT, "near(reach = 2b)", len("near("))
        renamed = await client.text_document_rename_async(types.RenameParams(DOCUMENT, inner, "width"))
        after = edited(TEXT, renamed.changes[URI])
        assert after == TEXT.replace("reach", "width")
        with pytest.raises(JsonRpcException, match="`window` is a name of the language"):
            await client.text_document_rename_async(types.RenameParams(DOCUMENT, inner, "window"))

        where = await client.text_document_definition_async(types.DefinitionParams(DOCUMENT, inner))
        assert where.range.start == position(TEXT, "reach")
        options = types.FormattingOptions(tab_size=4, insert_spaces=True)
        edits = await client.text_document_formatting_async(types.DocumentFormattingParams(DOCUMENT, options))
        formatted = edited(TEXT, edits)
        assert formatted.splitlines()[1:4] == [
            "pattern near(reach = 4b) {",
            "    causal",
            "    attend window(reach) | stride(8b, phase = -g)",
        ]

        client.text_document_did_close(types.DidCloseTextDocumentParams(DOCUMENT))
        assert not (await client.problems()).diagnostics
        assert await client.text_document_hover_async(types.HoverParams(DOCUMENT, inner)) is None

    session(drive)


def test_pictures_and_settings() -> None:
    pages: list[Path] = []

    async def drive(client: Client) -> None:
        await begin(client, {"heads": 4, "seqLen": 1024})
        opened(client)
        await client.problems()
        everything = types.Range(types.Position(0, 0), types.Position(9, 0))
        hints = await client.text_document_inlay_hint_async(types.InlayHintParams(DOCUMENT, everything))
        assert [hint.position.line for hint in hints] == [1, 3]
        share, link = hints[0].label
        assert share.value.endswith("% live ") and "1024 tokens" in share.tooltip and "4 heads" in share.tooltip
        told = await client.workspace_execute_command_async(
            types.ExecuteCommandParams(link.command.command, link.command.arguments)
        )
        (shown,) = client.shown
        assert shown.external and shown.uri.endswith("/near.html")
        page = Path(told["path"])
        pages.append(page)
        assert told["title"] == "near" and "<svg" in page.read_text(encoding="utf-8")

        client.workspace_did_change_configuration(types.DidChangeConfigurationParams({"sparsec": {"heads": 2}}))
        hints = await client.text_document_inlay_hint_async(types.InlayHintParams(DOCUMENT, everything))
        assert "2 heads" in hints[0].label[0].tooltip
        changed(client, TEXT.replace("near(reach = 4b)", "near(reach = nope)"), 2)
        await client.problems()
        refused = types.ExecuteCommandParams("sparsec.picture", [URI, "near"])
        assert await client.workspace_execute_command_async(refused) is None
        assert "no picture" in client.messages[-1]

    session(drive)
    assert len(pages) == 1 and not pages[0].parent.exists()


def test_a_client_that_goes_away_ends_the_server() -> None:
    async def whole() -> int:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sparsec", "lsp"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.close()
        ended: Awaitable[int] = process.wait()
        return await asyncio.wait_for(ended, 20)

    assert asyncio.run(whole()) in (0, 1)
