"""The text of a `.sparse` file and a choice of sizes -> what the playground answers: diagnostics, a page that draws.

Invariant: a text is data: nothing of it is run, no file is opened, and sizes are bounded before any work; the pictures
are computed by the page in the reader's browser.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsec.diagnostics.model import CallError, DiagnosticError, InternalError, Severity, SparsecError
from sparsec.diagnostics.render import render_text
from sparsec.diagnostics.source import SourceFile
from sparsec.pictures.drawing import LONGEST
from sparsec.pictures.methods import show_pattern
from sparsec.pictures.page import page, pattern_script
from sparsec.program import check, parse

TEXT_LIMIT = 1 << 16
"""Characters of a text."""
HEADS_LIMIT = 256
FILE_NAME = "playground.sparse"


@dataclass(frozen=True, slots=True)
class PlayRequest:
    """A text, the pattern to draw (none: the first), head counts (none: what the text says, or the default), length."""

    text: str
    pattern: str | None
    heads: int | None
    kv_heads: int | None
    seq_len: int


def asked_of(data: object) -> PlayRequest:
    """What a request's JSON asks. Raises CallError for anything else."""
    if not isinstance(data, Mapping):
        raise CallError("expected a JSON object")
    text, pattern = data.get("text"), data.get("pattern")
    if not isinstance(text, str) or len(text) > TEXT_LIMIT:
        raise CallError(f"expected a text of at most {TEXT_LIMIT} characters")
    if pattern is not None and not isinstance(pattern, str):
        raise CallError("expected the name of a pattern, or none")
    heads = _number(data, "heads", HEADS_LIMIT)
    kv_heads = _number(data, "kv_heads", HEADS_LIMIT)
    seq_len = _number(data, "seq_len", LONGEST)
    if seq_len is None:
        raise CallError("expected a number of tokens")
    return PlayRequest(text, pattern, heads, kv_heads, seq_len)


def answer(asked: PlayRequest) -> dict[str, object]:
    """`diagnostics` as text, `errors` (whether any is an error), `patterns` by name, the one `drawn`, and its `page`
    (None: it cannot be drawn)."""
    source = SourceFile(FILE_NAME, asked.text)
    _, found = check(source)
    said = {"diagnostics": render_text(found), "errors": False, "patterns": [], "drawn": None, "page": None}
    if any(each.severity is Severity.ERROR for each in found):
        return {**said, "errors": True}
    program = parse(asked.text, FILE_NAME)
    name = asked.pattern if asked.pattern in program.patterns else program.patterns[0]
    said |= {"patterns": list(program.patterns), "drawn": name}
    pattern = program.pattern(name)
    try:
        if pattern.heads is not None:
            if pattern.heads > HEADS_LIMIT:
                raise CallError(f"expected at most {HEADS_LIMIT} heads in the playground, got {pattern.heads}")
            shown = show_pattern(pattern, asked.seq_len)
        else:
            shown = show_pattern(pattern, asked.seq_len, heads=asked.heads, kv_heads=asked.kv_heads)
        drawn = page(shown.title, [], pattern_script([(name, shown.lowered)], shown.view))
    except DiagnosticError as error:
        return {**said, "errors": True, "diagnostics": render_text(dict.fromkeys((*found, *error.diagnostics)))}
    except InternalError:
        raise
    except SparsecError as error:
        told = [*filter(None, [render_text(found)]), f"error: {error}"]
        return {**said, "errors": True, "diagnostics": "\n\n".join(told)}
    warned = dict.fromkeys((*found, *pattern.diagnostics))
    return {**said, "diagnostics": render_text(warned), "page": drawn}


def _number(data: Mapping[str, object], name: str, most: int) -> int | None:
    given = data.get(name)
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
        raise CallError(f"expected {name} between 1 and {most}")
    return given
