"""Bytes -> a file that is written whole or not at all.

Invariant: a file that is replaced keeps its mode; a new one gets the mode that the process gives to new files.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Writes beside the file, under a name of its own, and then renames. Raises OSError if it cannot be written."""
    path = path.resolve()
    temporary = path.with_name(f".sparsec-{secrets.token_hex(8)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            if path.exists():
                os.fchmod(stream.fileno(), path.stat().st_mode & 0o7777)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
