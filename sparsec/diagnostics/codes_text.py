"""The codes E001 to E029: a file that cannot be read as text, tokens, or statements.

One constructor a code; its docstring's first line is the code's entry in the documentation. Invariant: a code never
changes its meaning.
"""

from __future__ import annotations

from sparsec.diagnostics.model import Diagnostic, Severity
from sparsec.diagnostics.source import SourceFile, Span

IMPORT_HINT = 'write `import "other.sparse"`, or `import "other.sparse" as name`, on one line'
COMMENT_HINT = "`//` divides numbers: a comment starts with `#`"


def _error(
    code: str, source: SourceFile, span: Span, message: str, hint: str | None = None, notes: tuple[str, ...] = ()
) -> Diagnostic:
    return Diagnostic(code, Severity.ERROR, source, span, message, hint, notes)


def quoted(text: str) -> str:
    """`text` in back-quotes, clipped: a token may be as long as the file."""
    return f"`{text}`" if len(text) <= 40 else f"`{text[:36]}...`"


def place(source: SourceFile, span: Span) -> str:
    """`line 3, column 12`: for notes that point to a second place."""
    return f"line {source.line_of(span.start)}, column {source.column_of(span.start)}"


def invalid_utf8(source: SourceFile, span: Span, byte: int, others: int) -> Diagnostic:
    """E001: the file is not UTF-8."""
    notes = (f"{others} more invalid sequences follow",) if others else ()
    return _error("E001", source, span, f"the byte 0x{byte:02x} is not UTF-8 here", "save the file as UTF-8", notes)


def nul_character(source: SourceFile, span: Span) -> Diagnostic:
    """E002: the file holds a NUL character."""
    return _error("E002", source, span, "the file holds a NUL character", "a `.sparse` file is text: remove it")


def file_too_large(source: SourceFile, limit: int) -> Diagnostic:
    """E003: the file is larger than 1 MiB."""
    return _error("E003", source, Span(0, 0), f"the file has more than {limit} bytes", "split the file")


def too_many_tokens(source: SourceFile, span: Span, limit: int) -> Diagnostic:
    """E004: the file has more tokens than the limit."""
    return _error("E004", source, span, f"the file has more than {limit} tokens and comments", "split the file")


def unknown_character(source: SourceFile, span: Span, text: str, hint: str | None) -> Diagnostic:
    """E005: a character that no token of the language contains."""
    what = f"the character {quoted(text)} has" if len(text) == 1 else f"the characters {quoted(text)} have"
    return _error("E005", source, span, f"{what} no meaning here", hint)


def malformed_number(source: SourceFile, span: Span, text: str) -> Diagnostic:
    """E006: a number with a suffix or a digit that numbers do not have."""
    hint = "write `64`, `4k` (times 1024), `16b` (blocks) or `0.5`"
    return _error("E006", source, span, f"{quoted(text)} is not a number", hint)


def integer_too_large(source: SourceFile, span: Span, text: str) -> Diagnostic:
    """E007: an integer over 2^31 - 1."""
    return _error("E007", source, span, f"{quoted(text)} is over 2147483647", "the largest integer is 2147483647")


def name_too_long(source: SourceFile, span: Span, limit: int) -> Diagnostic:
    """E008: a name or number longer than the limit."""
    return _error("E008", source, span, f"a word of more than {limit} characters", "choose a shorter one")


def import_statement(source: SourceFile, span: Span) -> Diagnostic:
    """E009: an `import` that names no file between two quotes."""
    return _error("E009", source, span, "an import names a file between two quotes", IMPORT_HINT)


def unexpected_token(
    source: SourceFile, span: Span, expected: str, found: str, hint: str | None = None, notes: tuple[str, ...] = ()
) -> Diagnostic:
    """E010: a token that cannot stand where it stands."""
    what = quoted(found) if found else "the end of the file"
    return _error("E010", source, span, f"expected {expected}, found {what}", hint, notes)


def misspelt_keyword(source: SourceFile, span: Span, found: str, keyword: str) -> Diagnostic:
    """E011: a word that looks like a keyword, where only keywords can stand."""
    return _error("E011", source, span, f"{quoted(found)} is not a keyword", f"did you mean `{keyword}`?")


def keyword_as_name(source: SourceFile, span: Span, keyword: str, hint: str | None = None) -> Diagnostic:
    """E012: a keyword where a name is expected."""
    message = f"`{keyword}` is a keyword and cannot be a name"
    return _error("E012", source, span, message, hint or f"choose another name, such as `{keyword}_`")


def missing_brace(source: SourceFile, span: Span, found: str, opening: Span) -> Diagnostic:
    """E013: a `{` without its `}`."""
    what = quoted(found) if found else "the end of the file"
    note = f"the `{{` at {place(source, opening)} is still open"
    return _error("E013", source, span, f"expected `}}`, found {what}", "close the item with `}`", (note,))


def unmatched_bracket(source: SourceFile, span: Span, found: str) -> Diagnostic:
    """E014: a closing bracket that nothing opens."""
    return _error("E014", source, span, f"`{found}` closes nothing", "remove it")


def nesting_too_deep(source: SourceFile, span: Span, limit: int) -> Diagnostic:
    """E015: brackets, calls and unary operators nested deeper than 64."""
    message = f"nesting of more than {limit} levels"
    return _error("E015", source, span, message, "name a part with `let name = ...`")


def expression_too_long(source: SourceFile, span: Span, limit: int) -> Diagnostic:
    """E016: a chain of more operators than the limit."""
    message = f"an expression of more than {limit} chained operators"
    return _error("E016", source, span, message, "name a part with `let name = ...`, or write a list or a range")


def import_without_folder(source: SourceFile, span: Span) -> Diagnostic:
    """E017: an import of a file that cannot be read."""
    hint = "load it from a file, or give the texts: `sparsec.parse(text, imports={...})`"
    return _error("E017", source, span, "a text that is no file has no folder to import from", hint)


def import_unreadable(source: SourceFile, span: Span, path: str, why: str) -> Diagnostic:
    """E017: an import of a file that cannot be read."""
    hint = "a path starts at the folder of the file that imports"
    return _error("E017", source, span, f"the file {quoted(path)} cannot be read: {why}", hint)


def import_outside(source: SourceFile, span: Span) -> Diagnostic:
    """E018: an import of a file that may not be read."""
    message = "a file may import what lies in the folder of the first file, or below it, by a relative path with `/`"
    return _error("E018", source, span, message, "move the file there, or allow another folder with `--root`")


def import_of_no_sparse(source: SourceFile, span: Span, limit: int) -> Diagnostic:
    """E018: an import of a file that may not be read."""
    message = f"a file may import files whose path ends in `.sparse` and has at most {limit} characters"
    return _error("E018", source, span, message, "rename the file")


def import_cycle(source: SourceFile, span: Span, paths: list[str]) -> Diagnostic:
    """E019: files that import each other."""
    shown = " -> ".join(map(quoted, paths if len(paths) <= 8 else [*paths[:7], "...", paths[-1]]))
    return _error("E019", source, span, f"these files import each other: {shown}", "move what both need into a third")


def too_many_imports(source: SourceFile, span: Span, files: int, depth: int) -> Diagnostic:
    """E020: more imported files, or more text in them, than the limit."""
    message = f"more than {files} files are imported, or one through more than {depth} others"
    return _error("E020", source, span, message, "put patterns that belong together into one file")


def imports_too_large(source: SourceFile, span: Span, size: int, tokens: int) -> Diagnostic:
    """E020: more imported files, or more text in them, than the limit."""
    message = f"the files together have more than {size} characters, or more than {tokens} tokens and comments"
    return _error("E020", source, span, message, "import less")


def import_twice(source: SourceFile, span: Span, path: str) -> Diagnostic:
    """E021: a file imported twice, or a name that two imports bring."""
    return _error("E021", source, span, f"the file {quoted(path)} is imported already", "remove one of the two imports")


def imported_name_taken(source: SourceFile, span: Span, name: str, line: int) -> Diagnostic:
    """E021: a file imported twice, or a name that two imports bring."""
    message = f"this import brings {quoted(name)}, which line {line} defines or brings already"
    return _error("E021", source, span, message, 'put it behind a name: `import "other.sparse" as name`')


def dotted_definition(source: SourceFile, span: Span, name: str) -> Diagnostic:
    """E022: a dot in a name that is defined."""
    return _error("E022", source, span, f"{quoted(name)} is of an import and cannot be defined", "leave the dot out")


def more_problems(source: SourceFile, span: Span, count: int) -> Diagnostic:
    """E029: more problems than are shown."""
    what = "1 more problem is" if count == 1 else f"{count} more problems are"
    return _error("E029", source, span, f"at least {what} not shown", "mend the first ones and check again")
