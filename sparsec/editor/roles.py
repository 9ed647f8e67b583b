"""What each piece of a text is for a reader, from the grammar's terminals and the tables of built-in names.

All that colours a text goes by it: semantic tokens, `pygments_lexer`, `textmate`. Invariant: the pieces of `pieces`
joined are the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from sparsec.sema.builtins import FUNCTIONS, TERMS, VALUES
from sparsec.syntax.expected import CLOSING, OPERATORS
from sparsec.syntax.lexer import grammar, keywords, spellings


class Role(Enum):
    """A kind of piece."""

    KEYWORD = "keyword"
    CONSTANT = "constant"
    TERM = "term"
    FUNCTION = "function"
    VALUE = "value"
    NAME = "name"
    NUMBER = "number"
    STRING = "string"
    OPERATOR = "operator"
    PUNCTUATION = "punctuation"
    COMMENT = "comment"
    SPACE = "space"
    ERROR = "error"


class Lexeme(NamedTuple):
    """A part of a text: where it starts, what it says, and what it is."""

    start: int
    text: str
    role: Role


_OF_TERMINAL = {
    **dict.fromkeys(("TRUE", "FALSE"), Role.CONSTANT),
    **dict.fromkeys((*OPERATORS, "NOT", "TILDE", "EQUAL"), Role.OPERATOR),
    **dict.fromkeys(("INTEGER", "DECIMAL"), Role.NUMBER),
    **dict.fromkeys(("MALFORMED_NUMBER", "UNKNOWN"), Role.ERROR),
    "COMMENT": Role.COMMENT,
    "WHITE_SPACE": Role.SPACE,
    "NAME": Role.NAME,
}
"""Of the terminals that `terminal_role` does not tell by their text."""


def terminal_role(terminal: str) -> Role:
    """The role of a terminal of the grammar; a `NAME` may be a built-in one, which `name_role` tells."""
    if terminal in _OF_TERMINAL:
        return _OF_TERMINAL[terminal]
    if terminal in spellings():
        return Role.KEYWORD if spellings()[terminal] in keywords() else Role.PUNCTUATION
    return Role.STRING


def name_role(name: str) -> Role:
    """The role of a name: that of a built-in one, else NAME."""
    if name in TERMS:
        return Role.TERM
    if name in FUNCTIONS:
        return Role.FUNCTION
    return Role.VALUE if name in VALUES else Role.NAME


def words() -> dict[str, Role]:
    """Every word of the language by its role; `causal` is a keyword that is also a term."""
    reserved = {text: terminal_role(name) for name, text in spellings().items() if text in keywords()}
    return reserved | {name: name_role(name) for name in (*TERMS, *FUNCTIONS, *VALUES) if name not in reserved}


def brackets() -> tuple[tuple[str, str], ...]:
    """The opening and closing brackets."""
    return tuple((spellings()[opening], spellings()[closing]) for closing, opening in CLOSING.items())


def pieces(text: str) -> Iterator[Lexeme]:
    """All pieces of a text, in order."""
    for token in grammar().lex(text, dont_ignore=True):
        role = terminal_role(token.type)
        start = token.start_pos
        assert start is not None, "a token of a text has a place"
        yield Lexeme(start, str(token), name_role(token) if role is Role.NAME else role)
