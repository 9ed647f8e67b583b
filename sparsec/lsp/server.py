"""The language server: texts that a client opens and changes, and its requests about them.

Invariant: it answers about texts that the client has opened, and reads no file but those that they import; what takes
long runs beside the loop that reads requests, so that a client can go on.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from sparsec import __version__
from sparsec.editor.document import Document, Settings
from sparsec.editor.edits import RenameError
from sparsec.editor.positions import Encoding, LineIndex
from sparsec.lsp.answers import LEGEND, PICTURE, Answers
from sparsec.pictures.drawing import LONGEST
from sparsec.sema.node import MAX_HEADS
from sparsec.syntax.imports import Imports

DEBOUNCE = 0.15
"""Seconds that a text has to stay as it is before its problems are looked for."""

Picture = Callable[[Document, str, Settings], str | None]
"""Draws a pattern of a text, by its name: an HTML page, None of a text with errors."""
_Given = TypeVar("_Given")


class SparseServer(LanguageServer):
    """A server with the texts that are open, and what was found in them."""

    def __init__(self, settings: Settings, picture: Picture) -> None:
        # A client sends whole texts: they are small, and a change then has one meaning for any line end.
        super().__init__("sparsec", __version__, types.TextDocumentSyncKind.Full)
        self.defaults = settings
        self.settings = settings
        self.picture = picture
        self.shows_pictures = False  # the client shows a picture itself
        self.workers = ThreadPoolExecutor(2, "sparsec")
        self.pictures: Path | None = None
        self.open: set[str] = set()
        self._answers: dict[str, Answers] = {}
        self._waiting: dict[str, asyncio.Task[None]] = {}

    def answers(self, uri: str) -> Answers | None:
        """The answers about a text as it is; None for one that is not open."""
        if uri not in self.open:
            return None
        text, known = self.workspace.get_text_document(uri), self._answers.get(uri)
        if known is None or known.document.text != text.source:
            encoding = Encoding(str(getattr(self.workspace.position_encoding, "value", "utf-16")))
            known = Answers(uri, document_of(uri, text.source), LineIndex(text.source, encoding))
            self._answers[uri] = known
        return known

    async def beside(self, work: Callable[[], _Given]) -> _Given:
        """The result of work that may take long."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, work)

    def look(self, uri: str) -> None:
        """Looks for the problems of a text once it has not changed for a while."""
        if (waiting := self._waiting.pop(uri, None)) is not None:
            waiting.cancel()
        self._waiting[uri] = asyncio.create_task(self._publish(uri))

    def look_at_importers(self) -> None:
        """Looks again at the open texts that import a file, for a file has changed."""
        for uri, answers in tuple(self._answers.items()):
            if answers.document.has_imports:
                del self._answers[uri]
                self.look(uri)

    async def _publish(self, uri: str) -> None:
        await asyncio.sleep(DEBOUNCE)
        answers = self.answers(uri)
        if answers is None:
            return
        version = self.workspace.get_text_document(uri).version
        found = await self.beside(answers.diagnostics)
        if answers is self.answers(uri):  # else the text has changed, and is looked at again
            self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, found, version))

    def forget(self, uri: str) -> None:
        """A text that is closed has no problems."""
        if (waiting := self._waiting.pop(uri, None)) is not None:
            waiting.cancel()
        self.open.discard(uri)
        self._answers.pop(uri, None)
        self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))

    def configure(self, given: object) -> None:
        """Takes the settings of a client: `heads`, `kvHeads`, `seqLen`; what is none of them counts as left out."""
        if not isinstance(given, dict):
            return
        heads = _integer(given.get("heads"), MAX_HEADS)
        seq_len = _integer(given.get("seqLen"), LONGEST)
        kv_heads = _integer(given.get("kvHeads"), MAX_HEADS)
        self.settings = Settings(heads or self.defaults.heads, kv_heads, seq_len or self.defaults.seq_len)

    def page(self, uri: str, name: str) -> str | None:
        """The picture of a pattern as a page; None if the text is not open, or has errors."""
        answers = self.answers(uri)
        if answers is None:
            return None
        return self.picture(answers.document, name, self.settings)

    def saved(self, uri: str, page: str, name: str) -> Path:
        """The page as a file that goes when the server ends."""
        if self.pictures is None:
            self.pictures = Path(tempfile.mkdtemp(prefix="sparsec-"))
        folder = self.pictures / sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.html"
        fresh = path.with_suffix(".new")
        fresh.write_text(page, encoding="utf-8")
        return fresh.replace(path)

    def close(self) -> None:
        """Ends the workers and removes the pictures."""
        self.workers.shutdown(wait=False, cancel_futures=True)
        if self.pictures is not None:
            shutil.rmtree(self.pictures, ignore_errors=True)


def document_of(uri: str, text: str) -> Document:
    """The text of a file imports from its folder; one that has no file yet, or no path to one, imports nothing."""
    path = to_fs_path(uri) if uri.startswith("file:") else None
    if not path:
        return Document(uri, text)
    try:
        return Document(path, text, Imports.of_file(Path(path)))
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL
        return Document(path, text)


def _integer(given: object, most: int) -> int | None:
    """A whole number from 1 to `most`; a client may send it as a float."""
    match given:
        case bool():
            return None
        case float() if given.is_integer():
            given = int(given)
    return given if isinstance(given, int) and 1 <= given <= most else None


def untold(record: logging.LogRecord) -> bool:
    """Whether a client does not know already what pygls logs: a refusal is an answer, and no fault of the server."""
    return record.exc_info is None or not isinstance(record.exc_info[1], JsonRpcException)


def make_server(settings: Settings, picture: Picture) -> SparseServer:
    """A server with all its features."""
    logging.getLogger("pygls.protocol.json_rpc").addFilter(untold)
    server = SparseServer(settings, picture)
    _follow_texts(server)
    _answer_quickly(server)
    _answer_beside(server)
    return server


def serve(settings: Settings, picture: Picture) -> None:
    """Speaks on standard input and output until the client ends it or goes away."""
    server = make_server(settings, picture)
    try:
        server.start_io()
    finally:
        server.close()


def _follow_texts(server: SparseServer) -> None:
    @server.feature(types.INITIALIZE)
    def initialize(params: types.InitializeParams) -> None:
        given = params.initialization_options
        server.configure(given)
        server.shows_pictures = isinstance(given, dict) and given.get("showsPictures") is True

    @server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)
    def changed(params: types.DidChangeConfigurationParams) -> None:
        given = params.settings
        server.configure(given.get("sparsec") if isinstance(given, dict) else None)

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    async def opened(params: types.DidOpenTextDocumentParams) -> None:
        server.open.add(params.text_document.uri)
        server.look(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    async def edited(params: types.DidChangeTextDocumentParams) -> None:
        server.look(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    async def saved(params: types.DidSaveTextDocumentParams) -> None:
        server.look_at_importers()

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        server.forget(params.text_document.uri)


def _answer_quickly(server: SparseServer) -> None:
    def of(params: Any) -> Answers | None:
        return server.answers(params.text_document.uri)

    @server.feature(
        types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=["(", ",", ":", "=", "|", "&"])
    )
    def completion(params: types.CompletionParams) -> types.CompletionList | None:
        able = server.client_capabilities.text_document
        item = able.completion.completion_item if able is not None and able.completion is not None else None
        snippets = item is not None and bool(item.snippet_support)
        return found.completion(params.position, snippets=snippets) if (found := of(params)) else None

    @server.feature(types.TEXT_DOCUMENT_SIGNATURE_HELP, types.SignatureHelpOptions(trigger_characters=["(", ","]))
    def signature(params: types.SignatureHelpParams) -> types.SignatureHelp | None:
        return found.signature(params.position) if (found := of(params)) else None

    @server.feature(types.TEXT_DOCUMENT_DEFINITION)
    def definition(params: types.DefinitionParams) -> types.Location | None:
        return found.definition(params.position) if (found := of(params)) else None

    @server.feature(types.TEXT_DOCUMENT_REFERENCES)
    def references(params: types.ReferenceParams) -> list[types.Location] | None:
        declared = params.context.include_declaration
        return found.references(params.position, declaration=declared) if (found := of(params)) else None

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT)
    def highlights(params: types.DocumentHighlightParams) -> list[types.DocumentHighlight] | None:
        return found.highlights(params.position) if (found := of(params)) else None

    @server.feature(types.TEXT_DOCUMENT_PREPARE_RENAME)
    def renamable(params: types.PrepareRenameParams) -> types.Range | None:
        found = of(params)
        return None if found is None else _told(found.renamable, params.position)

    @server.feature(types.TEXT_DOCUMENT_RENAME, types.RenameOptions(prepare_provider=True))
    def rename(params: types.RenameParams) -> types.WorkspaceEdit | None:
        found = of(params)
        return None if found is None else _told(found.rename, params.position, params.new_name)

    @server.feature(types.TEXT_DOCUMENT_FORMATTING)
    def formatting(params: types.DocumentFormattingParams) -> list[types.TextEdit] | None:
        return found.formatting() if (found := of(params)) else None

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    def symbols(params: types.DocumentSymbolParams) -> list[types.DocumentSymbol] | None:
        return found.symbols() if (found := of(params)) else None

    @server.feature(types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, LEGEND)
    def tokens(params: types.SemanticTokensParams) -> types.SemanticTokens | None:
        return found.tokens() if (found := of(params)) else None


def _told(work: Callable[..., _Given], *arguments: object) -> _Given:
    """The result of work; a name that cannot be changed becomes the protocol's error, which a client shows."""
    try:
        return work(*arguments)
    except RenameError as error:
        raise JsonRpcException(message=str(error), code=types.LSPErrorCodes.RequestFailed.value) from error


def _answer_beside(server: SparseServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_HOVER)
    async def hover(params: types.HoverParams) -> types.Hover | None:
        found, settings = server.answers(params.text_document.uri), server.settings
        return await server.beside(lambda: found.hover(params.position, settings)) if found else None

    @server.feature(
        types.TEXT_DOCUMENT_CODE_ACTION, types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix])
    )
    async def actions(params: types.CodeActionParams) -> list[types.CodeAction] | None:
        found = server.answers(params.text_document.uri)
        return await server.beside(lambda: found.actions(params.range)) if found else None

    @server.feature(types.TEXT_DOCUMENT_INLAY_HINT)
    async def hints(params: types.InlayHintParams) -> list[types.InlayHint] | None:
        found, settings = server.answers(params.text_document.uri), server.settings
        return await server.beside(lambda: found.hints(params.range, settings)) if found else None

    @server.command(PICTURE)
    async def picture(uri: str, name: str) -> dict[str, str] | None:
        """The page, for a client that shows it; any other is asked to open it as a file."""
        page = await server.beside(lambda: server.page(uri, name))
        if page is None:
            server.window_show_message(
                types.ShowMessageParams(types.MessageType.Info, "There is no picture of a pattern with errors.")
            )
            return None
        if server.shows_pictures:
            return {"title": name, "html": page}
        path = server.saved(uri, page, name)
        window = server.client_capabilities.window
        if window is not None and window.show_document is not None and window.show_document.support:
            await server.window_show_document_async(types.ShowDocumentParams(path.as_uri(), external=True))
        else:
            server.window_show_message(types.ShowMessageParams(types.MessageType.Info, f"The picture is {path}"))
        return {"title": name, "path": str(path)}
