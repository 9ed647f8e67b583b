"""A drawing -> a file of one of its forms, by the file's suffix."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sparsec.diagnostics.model import CallError
from sparsec.diagnostics.whole_file import write_whole


class Drawable(Protocol):
    """The forms that every drawing has."""

    def text(self) -> str: ...
    def svg(self) -> str: ...
    def html(self) -> str: ...
    def json(self) -> str: ...


def save_drawing(self: Drawable, path: str | Path) -> None:
    """Writes an image (`.svg`), a page (`.html`), text (`.txt`) or JSON (`.json`), whole or not at all.

    Raises CallError for another suffix, OSError if the file cannot be written.
    """
    forms = {".svg": self.svg, ".html": self.html, ".txt": self.text, ".json": self.json}
    form = forms.get(Path(path).suffix.lower())
    if form is None:
        raise CallError(f"expected a file that ends in {', '.join(forms)}, got {Path(path).name!r:.80}")
    write_whole(Path(path), form().encode())
