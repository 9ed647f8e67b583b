"""A token that does not fit -> the diagnostic that says what would have fitted, in human words.

Invariant: the sentence is made from the parser's own set of acceptable terminals, so that it never names one that would
not have been accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from lark import Token

from sparsec.diagnostics import codes_text as codes
from sparsec.diagnostics.model import Diagnostic
from sparsec.diagnostics.source import SourceFile
from sparsec.syntax.build import span_of
from sparsec.syntax.lexer import complete_statements, keywords, spellings, statement_starts

END = "$END"
CLOSING = {"RPAR": "LPAR", "RSQB": "LSQB", "RBRACE": "LBRACE"}
ITEM_STARTS = ("IMPORT", "PARAM", "PATTERN", "MODEL")
COMPARISONS = ("EQ", "NE", "LE", "GE", "LT", "GT", "IN")
OPERATORS = (
    *("OR", "AND", *COMPARISONS, "RANGE", "BAR", "AMPERSAND", "PLUS", "MINUS", "STAR", "FLOOR_DIV", "PERCENT", "SLASH"),
)
OPERANDS = (
    *("INTEGER", "DECIMAL", "TRUE", "FALSE", "NAME", "CAUSAL", "LSQB", "LPAR", "MINUS", "TILDE", "NOT", "RANGE"),
)
_VALUE_KEYWORDS = {
    "block": "the block size is `B`",
    "heads": "the number of query heads is `H`, of KV heads `G`",
    "kv": "the number of KV heads is `G`",
    "layers": "the number of layers is `L`",
}
_OF_OTHER_LANGUAGES = {
    **dict.fromkeys(("if", "elif", "else"), "heads differ by `where ... attend ...` and `otherwise attend ...`"),
    **dict.fromkeys(("kv_heads", "num_kv_heads"), "KV heads stand behind the query heads: `heads 8 kv 2`"),
}
"""What is written in the place of a word."""


@dataclass(frozen=True, slots=True)
class StopPlace:
    """Where the parser stopped: the token and the one before it, the terminal that starts the statement at hand, the
    brackets that are open, outermost first, and the terminals that would have been accepted."""

    source: SourceFile
    token: Token
    before: Token | None
    statement: str | None
    open: Sequence[Token]
    accepts: frozenset[str]


def rejection(place: StopPlace) -> Diagnostic:
    """The diagnostic for a token that the parser does not accept."""
    source, token, accepts = place.source, place.token, place.accepts
    span, found = span_of(token), str(token)
    in_item = bool(place.open)
    if in_item and token.type in (END, *ITEM_STARTS) and "RBRACE" in accepts:
        return codes.missing_brace(source, span, found, span_of(place.open[0]))
    if token.type in CLOSING and CLOSING[token.type] not in [bracket.type for bracket in place.open]:
        return codes.unmatched_bracket(source, span, found)
    if (keyword := keyword_like(place)) is not None:
        return codes.misspelt_keyword(source, span, found, str(keyword))
    before = place.before
    if place.statement in complete_statements() and before is not None:
        # A name may stand behind the keyword or not: this one may be the next statement's keyword, misspelt.
        meant = keyword_like(replace(place, token=before))
        if meant is not None:
            return codes.misspelt_keyword(source, span_of(before), str(before), str(meant))
    return codes.unexpected_token(source, span, in_words(accepts), found, _hint(place), _notes(place))


def keyword_for_name(source: SourceFile, token: Token) -> Diagnostic:
    """The diagnostic for a keyword that stands where a name would fit."""
    return codes.keyword_as_name(source, span_of(token), str(token), _VALUE_KEYWORDS.get(str(token)))


def in_words(accepts: frozenset[str]) -> str:
    """The acceptable terminals as a phrase: `` `,`, `)` or an operator ``."""
    rest = set(accepts)
    phrases: list[str] = []
    expression, operator = "INTEGER" in rest, "BAR" in rest
    statement, item = "LET" in rest, "PATTERN" in rest
    if expression:
        rest -= set(OPERANDS)
        phrases.append("an expression")
    if statement:
        rest -= statement_starts()
        phrases.append("a statement")
    if operator:
        rest -= {*OPERATORS, "LPAR", "LSQB"}
        phrases.append("an operator")
    if item:
        rest -= {*ITEM_STARTS, END}
        phrases.append("`import`, `param`, `pattern` or `model`")
    if "NAME" in rest:
        rest.discard("NAME")
        phrases.append("a name")
    rest.discard(END)
    signs = [f"`{text}`" for name, text in spellings().items() if name in rest]
    phrases = signs + phrases
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} or {phrases[-1]}"


def keyword_like(place: StopPlace) -> Token | None:
    """The acceptable keyword that a name is close to, as a token in the name's place."""
    token = place.token
    if token.type != "NAME" or token in _OF_OTHER_LANGUAGES:
        return None
    known = {text: name for name, text in spellings().items() if name in place.accepts and text in keywords()}
    close = get_close_matches(token.lower(), known, n=1, cutoff=0.7)
    return Token(known[close[0]], close[0], start_pos=token.start_pos, end_pos=token.end_pos) if close else None


def _hint(place: StopPlace) -> str | None:
    kind, accepts = place.token.type, place.accepts
    operator, at = "BAR" in accepts, span_of(place.token).start
    if kind == "FLOOR_DIV":
        return codes.COMMENT_HINT
    if any(place.source.text.startswith("/*", start) for start in (at, at - 1)):
        return "a comment starts with `#`, and ends with its line"
    if place.token in _OF_OTHER_LANGUAGES and "LET" in accepts:
        return _OF_OTHER_LANGUAGES[place.token]
    if kind == "LBRACE" and "LSQB" in accepts and not operator:
        return "a list stands in brackets: `[0, 1]`"
    if place.token == "import" and "PATTERN" in accepts:
        return codes.IMPORT_HINT
    if kind == "COMMA" and operator and place.open and place.open[-1].type == "LPAR":
        return "a list stands in brackets: `[0, 1]`"
    if kind == "COLON" and operator:
        return "a range is written `a .. b`"
    if kind == "NOT" and place.statement in ("ATTEND", "LET"):
        return "the complement of a set of pairs is written `~`"
    if kind in COMPARISONS and operator:
        return "comparisons do not chain: join two with `and`"
    if kind == "EQUAL" and "EQ" in accepts:
        return "compare with `==`"
    if kind == "EQUAL" and operator:
        return "only an argument has a name: `window(8, ahead = 4)`"
    if accepts == {"EQUAL"}:
        return f"give a default: `{place.before} = 64`"
    if kind in ("BAR", "AMPERSAND") and place.before is not None and place.before.type == kind:
        return f"write `{place.token}` once" if kind == "BAR" else "write `&` once, or `and` in a condition"
    if kind in statement_starts() and "PATTERN" in accepts:
        return "a statement stands in an item: `pattern name { ... }`"
    if kind == "NAME" and "LET" in accepts and not operator and _is_called(place):
        return f"a set of pairs stands behind `attend`: `attend {place.token}(...)`"
    if "//" in place.source.text[place.source.text.rfind("\n", 0, at) + 1 : at]:
        return codes.COMMENT_HINT
    if kind in OPERANDS and operator and place.statement in ("ATTEND", "LET"):
        return "join two terms with `|`, `&` or `-`"
    return None


def _is_called(place: StopPlace) -> bool:
    stop = span_of(place.token).stop
    return place.source.text[stop : stop + 8].lstrip().startswith("(")


def _notes(place: StopPlace) -> tuple[str, ...]:
    """Names the innermost open bracket, if the token is one that would end the statement."""
    if len(place.open) < 2 or place.token.type not in (END, "RBRACE", *ITEM_STARTS, *statement_starts()):
        return ()
    bracket = place.open[-1]
    return (f"the `{bracket}` at {codes.place(place.source, span_of(bracket))} is still open",)
