"""What notebooks show of patterns, models, programs and modules: images without scripts, which every viewer has.

Invariant: what cannot be drawn is shown as the words of its error; nothing raises for a reader who looks at a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape

from sparsec.diagnostics.model import InternalError, SparsecError

SEQ_LEN = 8192
"""Tokens of a picture that nobody asked a length of."""
PATTERNS, LINES = 4, 60
"""Of a program: the most patterns that are drawn, and the most lines of its text."""


def quiet(drawn: Callable[[], str], instead: str) -> str:
    """The image; where there is none, the value's own text and why."""
    try:
        return drawn()
    except InternalError:
        raise
    except SparsecError as error:
        return f"<pre>{escape(instead)}\n{escape(str(error))}</pre>"


def program_html(text: str, images: Iterable[Callable[[], str]]) -> str:
    """A program: its text, and the images of its first patterns."""
    lines = text.splitlines()
    shown = "\n".join([*lines[:LINES], *(["..."] if len(lines) > LINES else [])])
    drawn = [quiet(image, "") for image, _ in zip(images, range(PATTERNS), strict=False)]
    return "\n".join([f"<pre>{escape(shown)}</pre>", *drawn])
