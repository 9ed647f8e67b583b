"""What long work is doing, as one line on stderr that the next one replaces.

Invariant: nothing is written unless stderr is a terminal, and no thread runs beside a measurement.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CLEAR = "\r\x1b[2K"


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Gives a function that shows a message; the line is cleared at the end."""
    if not sys.stderr.isatty():
        yield lambda message: None
        return

    def show(message: str) -> None:
        sys.stderr.write(f"{_CLEAR}{message} ...")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()
