"""The files of a command: names, folders of `.sparse` files, and `-`, which is standard input.

Invariant: no more of a file is read than tells that it is too large, and folders are not left through links.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.diagnostics.source import SourceFile
from sparsec.syntax.lexer import MAX_BYTES
from sparsec.syntax.parser import read_file, read_source

STDIN = Path("-")
STDIN_NAME = "<stdin>"
ENDING = ".sparse"
FILE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
PLAIN_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""What is no `.sparse` file."""
FILE_OR_FOLDER = click.Path(exists=True, allow_dash=True, path_type=Path)


def files_of(named: Iterable[Path]) -> tuple[Path, ...]:
    """The files that were named, and those of the folders in the order of their names, each once.

    Raises CallError for a folder without any.
    """
    found: dict[Path, None] = {}
    for path in named:
        if path == STDIN or not path.is_dir():
            found[path] = None
            continue
        within = sorted(_within(path))
        if not within:
            raise CallError(f"expected a folder with files that end in {ENDING}, got {click.format_filename(path)}")
        found |= dict.fromkeys(within)
    return tuple(found)


def _within(folder: Path) -> Iterator[Path]:
    """The `.sparse` files of a folder and of those in it, hidden ones aside."""
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(where, name) for name in names if name.endswith(ENDING) and not name.startswith("."))


def open_source(path: Path) -> SourceFile:
    """The text at `path`. Raises DiagnosticError if it is no text, OSError if it cannot be read."""
    if path == STDIN:
        source, problems = read_source(STDIN_NAME, sys.stdin.buffer.read(MAX_BYTES + 1))
    else:
        source, problems = read_file(path, click.format_filename(path))
    if source is None:
        raise DiagnosticError(problems)
    return source
