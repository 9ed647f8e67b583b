"""`sparsec play`: a page on this machine in which a text is edited and drawn."""

from __future__ import annotations

import socket
import webbrowser
from contextlib import suppress
from importlib import util
from pathlib import Path

import click

from sparsec.cli.files import FILE, open_source
from sparsec.diagnostics.model import CallError

HOST = "127.0.0.1"


@click.command()
@click.argument("file", type=FILE, required=False)
@click.option("--port", type=click.IntRange(1, 65_535), default=8765, show_default=True)
@click.option("--open", "opened", is_flag=True, help="Open the page in the browser.")
def play(file: Path | None, port: int, opened: bool) -> None:
    """Serve a page to edit a pattern in: its diagnostics and its picture follow what is typed.

    FILE is what it begins with; it is read once and never written. The page is for this machine alone. Needs the extra
    `serve` (pip install "sparsec[serve]").

    Example: sparsec play examples/s2.sparse
    """
    if util.find_spec("starlette") is None or util.find_spec("uvicorn") is None:
        raise CallError('expected starlette and uvicorn: pip install "sparsec[serve]"')
    import uvicorn

    from sparsec.playground.answers import TEXT_LIMIT
    from sparsec.playground.server import START, application

    text = START if file is None else open_source(file).text
    if len(text) > TEXT_LIMIT:
        raise CallError(f"expected a file of at most {TEXT_LIMIT} characters, got {len(text)}")
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise CallError(f"expected a free port, got {HOST}:{port}: {error.strerror}: --port takes another") from error
    with listening, suppress(KeyboardInterrupt):
        address = f"http://{HOST}:{port}/"
        click.echo(f"{address}  (Ctrl-C ends it)")
        if opened:
            webbrowser.open(address)
        uvicorn.Server(uvicorn.Config(application(port, text), log_level="warning")).run(sockets=[listening])
