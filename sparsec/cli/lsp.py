"""`sparsec lsp`: a language server on standard input and output, for editors."""

from __future__ import annotations

import click

from sparsec.diagnostics.model import CallError, DiagnosticError, SparsecError
from sparsec.editor.document import Document, Settings
from sparsec.editor.values import assumed_counts
from sparsec.program import parse


@click.command()
@click.option("--stdio", is_flag=True, help="Standard input and output: what it does in any case.")
def lsp(stdio: bool) -> None:
    """Serve an editor: diagnostics, hover, completion, rename, formatting, pictures.

    Speaks the Language Server Protocol on standard input and output. It needs the extra `lsp`.

    Example: sparsec lsp
    """
    del stdio
    try:
        from sparsec.lsp.server import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("pygls", "lsprotocol"):
            raise
        raise SparsecError("the language server needs pygls: pip install 'sparsec[lsp]'") from error
    serve(Settings(), page_of)


def page_of(document: Document, name: str, settings: Settings) -> str | None:
    """The picture of a pattern of a text, as a page; None if the text has errors."""
    try:
        program = parse(document.text, document.source.name, imports=document.imported_texts or None)
        pattern = program.pattern(name)
        counts = assumed_counts(name, (pattern.heads, pattern.kv_heads), settings)
        if counts is None:
            return None
        return pattern.show(settings.seq_len, heads=counts.heads, kv_heads=counts.kv_heads).html()
    except (DiagnosticError, CallError):
        return None
