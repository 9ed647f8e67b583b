"""SourceFile -> tokens and comments; what no token can hold becomes a diagnostic.

Invariant: every character of the text is in exactly one token, comment, stretch of white space or diagnostic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from lark import Lark, Token

from sparsec._resources import read_data
from sparsec.diagnostics import codes_text as codes
from sparsec.diagnostics.model import Diagnostic
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.syntax.build import TreeBuilder, span_of
from sparsec.syntax.tree import Comment

MAX_BYTES = 1 << 20
MAX_TOKENS = 1 << 15
MAX_WORD = 128
MAX_INTEGER = (1 << 31) - 1
MAX_DIAGNOSTICS = 100

_CHARACTER_HINTS = {
    ";": "statements need no separator",
    "!": "negate with `not`, take a complement with `~`",
    "^": "the operators are `| & - ~` on patterns and `+ - * // %` on numbers",
    ".": "a range is written `a .. b`",
    '"': "the language has no strings: write the bare name",
    "'": "the language has no strings: write the bare name",
    "≤": "write `<=`",
    "≥": "write `>=`",
    "≠": "write `!=`",
    "−": "write `-`",
    "∪": "write `|`",
    "∩": "write `&`",
    "\u00a0": "this is a no-break space: write a plain one",
    "\ufeff": "this is a byte-order mark: remove it",
}


@cache
def grammar() -> Lark:
    """The parser tables of `grammar/sparse.lark`, built once a process and never stored on disk."""
    return Lark(
        read_data("grammar/sparse.lark"),
        parser="lalr",
        lexer="basic",
        keep_all_tokens=True,
        maybe_placeholders=False,
        transformer=TreeBuilder(),
    )


@cache
def spellings() -> dict[str, str]:
    """The text of every keyword and sign, by its terminal's name."""
    return {t.name: t.pattern.value for t in grammar().terminals if t.pattern.type == "str"}


@cache
def terminal_patterns() -> dict[str, str]:
    """The regular expression of every other terminal by its name, in the order in which the lexer tries them."""
    found = [t for t in grammar().terminals if t.pattern.type == "re"]
    return {t.name: t.pattern.to_regexp() for t in sorted(found, key=lambda t: -t.priority)}


@cache
def keywords() -> frozenset[str]:
    """The reserved words."""
    return frozenset(text for text in spellings().values() if text.isidentifier())


@cache
def statement_starts() -> frozenset[str]:
    """The terminals that start a statement."""
    parser = grammar().parse_interactive()
    for kind in ("PATTERN", "NAME", "LBRACE"):
        parser.feed_token(Token(kind, "", start_pos=0, end_pos=0))
    state = parser.parser_state
    return frozenset(filter(str.isupper, state.parse_conf.states[state.position])) - {"RBRACE"}


@cache
def complete_statements() -> frozenset[str]:
    """The terminals that are a whole statement."""
    rules = [rule.expansion for rule in grammar().rules if rule.origin.name == "statement"]
    return frozenset(symbols[0].name for symbols in rules if len(symbols) == 1)


@dataclass(slots=True)
class ProblemReport:
    """The problems found so far: the first MAX_DIAGNOSTICS, and how many more there were."""

    found: list[Diagnostic] = field(default_factory=list)
    hidden: int = 0

    @property
    def full(self) -> bool:
        return len(self.found) >= MAX_DIAGNOSTICS

    def add(self, diagnostic: Diagnostic) -> None:
        if self.full:
            self.hidden += 1
        else:
            self.found.append(diagnostic)

    def close(self, source: SourceFile) -> tuple[Diagnostic, ...]:
        """Every record in the order of the file, the count of those not shown last."""
        found = sorted(self.found, key=lambda diagnostic: diagnostic.span.start)
        if self.hidden:
            end = len(source.text)
            found.append(codes.more_problems(source, Span(end, end), self.hidden))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the parser reads. `mended` holds the offsets of tokens beside text that was reported and left out."""

    tokens: tuple[Token, ...]
    comments: tuple[Comment, ...]
    mended: frozenset[int]

    @property
    def count(self) -> int:
        """How many there are, comments too."""
        return len(self.tokens) + len(self.comments)


def split(source: SourceFile, report: ProblemReport) -> Tokens | None:
    """The tokens and comments of a text; None if there are too many of them, or it is too large."""
    size = len(source.text)
    if size > MAX_BYTES:
        report.add(codes.file_too_large(SourceFile(source.name, ""), MAX_BYTES))
        return None
    tokens: list[Token] = []
    comments: list[Comment] = []
    mended: set[int] = set()
    left_out = False
    pieces = 0
    for token in grammar().lex(source.text, dont_ignore=True):
        if token.type == "WHITE_SPACE":
            continue
        span = span_of(token)
        pieces += 1
        if pieces > MAX_TOKENS:
            report.add(codes.too_many_tokens(source, span, MAX_TOKENS))
            return None
        match token.type:
            case "COMMENT":
                comments.append(_comment(source, token, span, report))
                continue
            case "UNKNOWN":
                report.add(_unknown(source, str(token), span))
                left_out = True
                continue
            case "IMPORT" if token.count('"') < 2 or '""' in token:
                report.add(codes.import_statement(source, span))
                left_out = True
                continue
            case "MALFORMED_NUMBER" | "INTEGER" | "DECIMAL" | "NAME":
                token = _checked(source, token, span, report, mended)
        if left_out:
            mended.add(span.start)
        left_out = False
        tokens.append(token)
    return Tokens(tuple(tokens), tuple(comments), frozenset(mended))


def _comment(source: SourceFile, token: Token, span: Span, report: ProblemReport) -> Comment:
    nul = token.find("\0")
    if nul >= 0:
        report.add(codes.nul_character(source, Span(span.start + nul, span.start + nul + 1)))
    line_start = source.text.rfind("\n", 0, span.start) + 1
    own_line = not source.text[line_start : span.start].strip(" \t\r")
    text = token[1:].rstrip()
    return Comment(text, own_line, Span(span.start, span.start + 1 + len(text)))


def _unknown(source: SourceFile, text: str, span: Span) -> Diagnostic:
    nul = text.find("\0")
    if nul >= 0:
        return codes.nul_character(source, Span(span.start + nul, span.start + nul + 1))
    hint = "a name has letters from a to z, digits and `_`" if text[0].isalpha() else _CHARACTER_HINTS.get(text[0])
    return codes.unknown_character(source, span, text, hint)


def _checked(source: SourceFile, token: Token, span: Span, report: ProblemReport, mended: set[int]) -> Token:
    """A word as the parser may take it: one that has to be reported stands in as the number 1 or a short name."""
    if len(token) > MAX_WORD:
        report.add(codes.name_too_long(source, span, MAX_WORD))
        stand_in = token[:MAX_WORD] if token.type == "NAME" else "1"
    elif token.type == "MALFORMED_NUMBER":
        report.add(codes.malformed_number(source, span, str(token)))
        stand_in = "1"
    elif token.type == "INTEGER" and int(token.rstrip("kb")) * (1024 if "k" in token else 1) > MAX_INTEGER:
        report.add(codes.integer_too_large(source, span, str(token)))
        stand_in = "1"
    else:
        return token
    mended.add(span.start)
    kind = "NAME" if token.type == "NAME" else "INTEGER"
    return Token(kind, stand_in, start_pos=span.start, end_pos=span.stop)
