"""The grammar of the language -> a TextMate grammar: the colours of an editor without a language server.

`grammar/sparse.tmLanguage.json` holds what `textmate_grammar` gives. Invariant: its patterns, tried in order at each
place, split a text as the lexer does, but for white space.
"""

from __future__ import annotations

import json
import re

from sparsec.editor.roles import Role, terminal_role, words
from sparsec.syntax.lexer import spellings, terminal_patterns

SCOPES = {
    Role.KEYWORD: "keyword.control.sparse",
    Role.CONSTANT: "constant.language.sparse",
    Role.TERM: "entity.name.function.term.sparse",
    Role.FUNCTION: "support.function.sparse",
    Role.VALUE: "variable.language.sparse",
    Role.NAME: "variable.other.sparse",
    Role.NUMBER: "constant.numeric.sparse",
    Role.STRING: "string.quoted.double.sparse",
    Role.OPERATOR: "keyword.operator.sparse",
    Role.PUNCTUATION: "punctuation.sparse",
    Role.COMMENT: "comment.line.number-sign.sparse",
    Role.ERROR: "invalid.illegal.sparse",
}
"""The scope of each role but white space."""


def textmate_grammar() -> dict[str, object]:
    """The grammar as JSON has it."""
    return {
        "$schema": "https://raw.githubusercontent.com/martinring/tmlanguage/master/tmlanguage.json",
        "name": "sparse",
        "scopeName": "source.sparse",
        "fileTypes": ["sparse"],
        "patterns": [{"name": SCOPES[role], "match": match} for role, match in _matches()],
    }


def textmate_text() -> str:
    """The grammar as the file has it."""
    return json.dumps(textmate_grammar(), indent=2, ensure_ascii=False) + "\n"


def _matches() -> list[tuple[Role, str]]:
    """What is tried first comes first: numbers and comments, words, any other name, signs, and what has no meaning."""
    ahead, names, last = list[tuple[Role, str]](), list[tuple[Role, str]](), list[tuple[Role, str]]()
    for terminal, match in terminal_patterns().items():
        role = terminal_role(terminal)
        if role is not Role.SPACE:
            (names if role is Role.NAME else last if terminal == "UNKNOWN" else ahead).append((role, match))
    of_words: dict[Role, list[str]] = {}
    for word, role in words().items():
        of_words.setdefault(role, []).append(word)
    of_signs: dict[Role, list[str]] = {}
    for terminal, text in sorted(spellings().items(), key=lambda each: -len(each[1])):
        if not text.isidentifier():
            of_signs.setdefault(terminal_role(terminal), []).append(re.escape(text))
    ahead.sort(key=lambda each: each[0] is Role.ERROR)
    worded = [(role, f"(?:{'|'.join(found)})(?![A-Za-z0-9_])") for role, found in of_words.items()]
    return [*ahead, *worded, *names, *((role, "|".join(found)) for role, found in of_signs.items()), *last]
