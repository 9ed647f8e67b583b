"""Edits of a text: a new name, the standard layout, and what the hint of a diagnostic says.

Invariant: edits of one answer do not overlap; a fix is offered only if the text that it gives lacks the problem and has
no error that was not there before.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

from sparsec.diagnostics.codes_text import quoted
from sparsec.diagnostics.model import Diagnostic, Severity
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.editor.document import Document
from sparsec.editor.names import OF_FILE, Symbol, Use
from sparsec.program import check
from sparsec.sema.checks.scope import reserved
from sparsec.syntax.lexer import MAX_WORD, grammar
from sparsec.syntax.parser import parse
from sparsec.syntax.printer import print_file
from sparsec.syntax.tree import ImportItem

MAX_FIXED = 8
"""Diagnostics of one request for which fixes are looked for."""
MAX_TRIED = 6
"""Edits that are tried for one of them."""
MAX_CHARACTERS = 1 << 16
"""Of a text in which fixes are tried: each is a check of the whole."""
MAX_SECONDS = 1.0
"""Spent on fixes of one request, if it does not say otherwise: no check is begun after that."""
_ASKED = re.compile(r"(?:\b(?:add|close .* with|mean|one of|or|such as|with|write)\s|,\s)`([^`]+)`")
"""Code that a hint says to write."""
_NUMBER = re.compile(r"\bwrite (-?\d+b?)\b")
_EXAMPLES = re.compile(r"\b(?:such as|as in|is written)\b")
"""What a hint quotes behind these is an example, which can be added but takes no other's place."""


@dataclass(frozen=True, slots=True)
class Edit:
    """`text` in place of the characters of `span`."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Fix:
    """An edit that the hint of a diagnostic names; `sure`: the hint names that one edit alone."""

    title: str
    diagnostic: Diagnostic
    edit: Edit
    sure: bool


class RenameError(ValueError):
    """A name that cannot be changed, or not to this; the message says why, in one sentence."""


def applied(text: str, edits: tuple[Edit, ...]) -> str:
    """The text after the edits."""
    for edit in sorted(edits, key=lambda each: each.span.start, reverse=True):
        text = text[: edit.span.start] + edit.text + text[edit.span.stop :]
    return text


def renamable(document: Document, offset: int) -> tuple[Symbol, Span]:
    """What a rename at an offset is of, and the word there. Raises RenameError."""
    found = document.names.at(offset)
    if found is None:
        raise RenameError("there is no name here")
    if found.symbol is None:
        known = found.name in reserved() or found.use in (Use.ARGUMENT, Use.KIND)
        raise RenameError(f"`{found.name}` is a name of the language" if known else f"nothing defines `{found.name}`")
    return found.symbol, found.span


def rename(document: Document, offset: int, name: str) -> tuple[Edit, ...]:
    """The edits that give the symbol at an offset another name, everywhere in the text. Raises RenameError."""
    symbol, _ = renamable(document, offset)
    _check_name(name)
    names = document.names
    uses = names.of(symbol)
    items = {names.item_at(use.span.start) for use in uses}
    in_items = [names.items[item].symbols.get(name) for item in items if item is not None]
    taken = [other for other in (names.file.get(name), *in_items) if other is not None and other != symbol]
    if symbol.kind not in OF_FILE:  # it may hide a name of the file that its item does not use
        own = names.items[symbol.item]
        used = {each.symbol for each in names.occurrences if names.item_at(each.span.start) == symbol.item}
        taken = [other for other in taken if own.symbols.get(name) == other or other in used]
    if taken:
        line = document.source.line_of(taken[0].span.start)
        raise RenameError(f"`{name}` is already defined on line {line}")
    if name in _imported(document):
        raise RenameError(f"`{name}` is a name that an import brings")
    undefined = (each for each in names.occurrences if each.name == name and each.symbol is None)
    if (free := next((each for each in undefined if each.use is Use.REFERENCE), None)) is not None:
        line = document.source.line_of(free.span.start)
        raise RenameError(f"line {line} uses `{name}`, which nothing defines, and would mean this")
    return tuple(Edit(use.span, name) for use in uses)


def _imported(document: Document) -> set[str]:
    """The names that imports bring, and those that they stand behind."""
    aliases = (item.alias for item in document.tree.items if isinstance(item, ImportItem))
    brought = {*document.checked.patterns, *document.checked.models} - document.names.file.keys()
    return brought | {alias.text for alias in aliases if alias is not None}


def _check_name(name: str) -> None:
    if name in reserved():
        raise RenameError(f"`{name}` is a name of the language")
    whole = list(grammar().lex(name[: MAX_WORD + 1], dont_ignore=True))
    if len(name) > MAX_WORD or len(whole) != 1 or whole[0].type != "NAME" or "." in name:
        raise RenameError(f"a name is a letter or `_`, then letters, digits and `_`, at most {MAX_WORD} in all")


def formatting(document: Document) -> tuple[Edit, ...]:
    """The edit that lays the text out as `sparsec fmt` does; none of a text with errors, or one that is so already."""
    tree, _ = parse(document.source)
    if tree is None:
        return ()
    before, after = document.text, print_file(tree)
    if before == after:
        return ()
    start, shorter = 0, min(len(before), len(after))
    while start < shorter and before[start] == after[start]:
        start += 1
    end = 0
    while end < shorter - start and before[-1 - end] == after[-1 - end]:
        end += 1
    return (Edit(Span(start, len(before) - end), after[start : len(after) - end]),)


def fixes(document: Document, within: Span, seconds: float = MAX_SECONDS) -> tuple[Fix, ...]:
    """What the hints of the diagnostics that touch a span say to write, as far as it can be done by one edit.

    `seconds`: that looking for them may take.
    """
    if len(document.text) > MAX_CHARACTERS:
        return ()
    touched = [
        each
        for each in document.diagnostics
        if each.hint is not None and each.span.start <= within.stop and within.start <= each.span.stop
    ]
    deadline = monotonic() + seconds
    return tuple(fix for diagnostic in touched[:MAX_FIXED] for fix in _fixes(document, diagnostic, deadline))


def _fixes(document: Document, diagnostic: Diagnostic, deadline: float) -> Iterator[Fix]:
    tried: set[Edit] = set()
    found: dict[str, Edit] = {}
    for title, edit in _candidates(document, diagnostic):
        if edit in tried or title in found:
            continue
        if len(tried) == MAX_TRIED or monotonic() > deadline:
            break
        tried.add(edit)
        if _mends(document, diagnostic, edit):
            found[title] = edit
    for title, edit in found.items():
        yield Fix(title, diagnostic, edit, len(found) == 1)


def _candidates(document: Document, diagnostic: Diagnostic) -> Iterator[tuple[str, Edit]]:
    """What the hint may mean: to write a piece of code that it quotes in place of the span, around it or beside it; or
    to remove the span, with the sign beside it, or its line."""
    text, span, hint = document.text, diagnostic.span, diagnostic.hint or ""
    if span.start >= len(text):
        span = Span(len(text.rstrip()), len(text.rstrip()))
    wrong = text[span.start : span.stop]
    asked = hint if hint.startswith("add ") else _EXAMPLES.split(hint)[0]
    for code in (*_ASKED.findall(asked), *_NUMBER.findall(asked)):
        if "..." in code or code == wrong or code.endswith("(x)") or (code == "#" and wrong != "//"):
            continue
        if re.search(r"\b(add|close)\b", hint):
            yield from _insertions(document, span, code)
        elif not re.match(r"-?\d", code) or (f"`{code}`" not in asked and re.fullmatch(r"-?\d+b?", wrong)):
            yield f"Replace with `{code}`", Edit(span, code)
    for wrapper in re.findall(r"`(\w+)\(x\)`", hint):
        yield f"Write `{wrapper}({wrong})`", Edit(span, f"{wrapper}({wrong})")
    if "without parentheses" in hint and (arguments := re.match(r"\s*\([^()]*\)", text[span.stop :])):
        yield "Remove the parentheses", Edit(Span(span.stop, span.stop + arguments.end()), "")
    if re.search(r"\bremove (?:its line|the arm)|\bkeep one of the two", hint):
        yield from _removed_line(document, span)
    if re.search(r"\bremove (?:it\b|`|one of)|\bkeep one of the two", hint):
        yield from _removals(document, span)


def _insertions(document: Document, span: Span, code: str) -> Iterator[tuple[str, Edit]]:
    text = document.text
    title = f"Insert `{code}`"
    opening = text.find("{", span.start)
    if opening >= 0:
        yield title, Edit(Span(opening + 1, opening + 1), f" {code}")
    yield title, Edit(Span(span.start, span.start), f" {code} ")
    end = len(text.rstrip())
    yield title, Edit(Span(end, end), f"\n{code}\n" if end else f"{code}\n")


def _removals(document: Document, span: Span) -> Iterator[tuple[str, Edit]]:
    text = document.text
    removed = text[span.start : span.stop]
    title = f"Remove {quoted(removed)}" if removed.isprintable() else "Remove it"
    before = re.search(r"\s*(?:[|&+,-]|\band|\bor)\s*$", text[: span.start])
    if before is not None:
        yield title, Edit(Span(before.start(), span.stop), "")
    after = re.match(r"\s*(?:[|&,]|and\b|or\b)\s*", text[span.stop :])
    if after is not None:
        yield title, Edit(Span(span.start, span.stop + after.end()), "")
    yield title, Edit(span, "")


def _removed_line(document: Document, span: Span) -> Iterator[tuple[str, Edit]]:
    line = document.text.rfind("\n", 0, span.start) + 1
    end = document.text.find("\n", span.stop)
    if line and end >= 0:
        yield "Remove this line", Edit(Span(line, end + 1), "")


def _mends(document: Document, diagnostic: Diagnostic, edit: Edit) -> bool:
    """Whether the edited text has one problem of that code less, and no error more of any code."""
    after = check(SourceFile(document.source.name, applied(document.text, (edit,))), document.imports)[1]
    had, has = (Counter(each.code for each in found) for found in (document.diagnostics, after))
    errors = {each.code for each in after if each.severity is Severity.ERROR}
    return has[diagnostic.code] < had[diagnostic.code] and all(has[code] <= had[code] for code in errors)
