"""Whether a command may write a file that it names, before the work that makes its content."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click

from sparsec.diagnostics.model import CallError


def check_writable(path: Path, force: bool) -> None:
    """Before long work. Raises CallError for a file that exists and no `force`, OSError for a folder that does not."""
    if path.exists() and not force:
        raise CallError(f"{click.format_filename(path)} exists: --force replaces it")
    if not path.resolve().parent.is_dir():
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
