"""What long work is doing, as one line on stderr that the next one replaces.

Invariant: nothing is written unless stderr is a terminal, and no thread runs beside a measurement.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CLEAR = "\r\x1b[2K"


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Gives a function that shows a message, which any thread may call; the line is cleared at the end."""
    if not sys.stderr.isatty():
        yield lambda message: None
        return

    one_by_one = threading.Lock()

    def show(message: str) -> None:
        with one_by_one:
            sys.stderr.write(f"{_CLEAR}{message} ...")
            sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()


def no_progress(message: str) -> None:
    """Tells nobody."""


def told_of_kinds(tell: Callable[[str], None], what: str, name: str, done: int, of: int) -> None:
    """Tells of work on one kind of a model's layers, after others; of a pattern alone `what` is all that is told."""
    tell(f"{what}: {name}; {done} of {of} kinds of layers are done" if of > 1 else what)
