"""A text in which `@` marks a place -> the text without it, and the place."""

from __future__ import annotations

from sparsec.editor.document import Document


def marked(text: str) -> tuple[Document, int]:
    assert text.count("@") == 1
    return Document("marked.sparse", text.replace("@", "")), text.index("@")
