"""A lexer of Pygments for `.sparse` texts, which its entry point makes known: highlighted pages and terminals.

Invariant: the tokens are the pieces of `roles.pieces`, so that a text is coloured as the language reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pygments import token
from pygments.lexer import Lexer

from sparsec.editor.roles import Role, pieces

TOKENS = {
    Role.KEYWORD: token.Keyword,
    Role.CONSTANT: token.Keyword.Constant,
    Role.TERM: token.Name.Builtin,
    Role.FUNCTION: token.Name.Function,
    Role.VALUE: token.Name.Variable.Magic,
    Role.NAME: token.Name,
    Role.NUMBER: token.Number,
    Role.STRING: token.String,
    Role.OPERATOR: token.Operator,
    Role.PUNCTUATION: token.Punctuation,
    Role.COMMENT: token.Comment.Single,
    Role.SPACE: token.Whitespace,
    Role.ERROR: token.Error,
}


class SparseLexer(Lexer):  # type: ignore[misc]  # Pygments has no types
    """Attention patterns in the language of sparsec."""

    name = "sparsec"
    url = "https://pypi.org/project/sparsec/"
    aliases: ClassVar[list[str]] = ["sparse", "sparsec"]
    filenames: ClassVar[list[str]] = ["*.sparse"]

    def get_tokens_unprocessed(self, text: str) -> Iterator[tuple[int, object, str]]:
        """(offset, type, text) of each token."""
        for start, piece, role in pieces(text):
            yield start, TOKENS[role], piece
