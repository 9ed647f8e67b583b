"""What `sparsec.editor` finds in a text -> the types of the protocol.

Invariant: every position counts in the encoding that client and server agreed on.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from lsprotocol import types
from pygls.uris import from_fs_path

from sparsec.diagnostics.model import Diagnostic, Severity
from sparsec.diagnostics.source import Span
from sparsec.editor.completion import Completion, ItemKind, SurroundingCall, call_at, completions_at
from sparsec.editor.document import Document, Settings
from sparsec.editor.edits import Edit, Fix, fixes, formatting, renamable, rename
from sparsec.editor.hover import hover_at, slot_help
from sparsec.editor.live import pattern_share
from sparsec.editor.names import Occurrence, Symbol, SymbolKind, Use
from sparsec.editor.outline import Colour, Trait, coloured, outline
from sparsec.editor.positions import LineIndex
from sparsec.sema.builtins import FUNCTIONS, TERMS, usage

PICTURE = "sparsec.picture"
"""The command that draws a pattern: its arguments are the document and the name of the pattern."""
LEGEND = types.SemanticTokensLegend(
    token_types=[colour.value for colour in Colour], token_modifiers=[trait.value for trait in Trait]
)
HINT_SECONDS = 2.0
"""Spent on live shares of one answer: the patterns after that have their link alone."""
_KINDS = {
    ItemKind.KEYWORD: types.CompletionItemKind.Keyword,
    ItemKind.TERM: types.CompletionItemKind.Function,
    ItemKind.FUNCTION: types.CompletionItemKind.Function,
    ItemKind.VALUE: types.CompletionItemKind.Variable,
    ItemKind.CONSTANT: types.CompletionItemKind.Constant,
    ItemKind.ARGUMENT: types.CompletionItemKind.Property,
    ItemKind.INPUT_KIND: types.CompletionItemKind.EnumMember,
    ItemKind.PATTERN: types.CompletionItemKind.Struct,
    ItemKind.MODEL: types.CompletionItemKind.Class,
    ItemKind.PARAMETER: types.CompletionItemKind.TypeParameter,
    ItemKind.LET: types.CompletionItemKind.Variable,
    ItemKind.INPUT: types.CompletionItemKind.Variable,
}
_SYMBOLS = {
    SymbolKind.FILE_PARAMETER: types.SymbolKind.Constant,
    SymbolKind.PATTERN: types.SymbolKind.Struct,
    SymbolKind.MODEL: types.SymbolKind.Class,
    SymbolKind.PARAMETER: types.SymbolKind.TypeParameter,
    SymbolKind.LET: types.SymbolKind.Variable,
    SymbolKind.INPUT: types.SymbolKind.Field,
}
_UNNECESSARY = ("W604", "W607")
"""Codes whose span may go."""


class Answers:
    """The answers about one text."""

    def __init__(self, uri: str, document: Document, positions: LineIndex) -> None:
        self.uri = uri
        self.document = document
        self.positions = positions

    def offset(self, position: types.Position) -> int:
        return self.positions.offset(position.line, position.character)

    def range(self, span: Span) -> types.Range:
        start, stop = (self.positions.place(offset) for offset in (span.start, span.stop))
        return types.Range(types.Position(*start), types.Position(*stop))

    def span(self, given: types.Range) -> Span:
        return Span(self.offset(given.start), self.offset(given.end))

    def diagnostics(self) -> list[types.Diagnostic]:
        return [self.diagnostic(found) for found in self.document.diagnostics]

    def diagnostic(self, found: Diagnostic) -> types.Diagnostic:
        """One problem: notes and hint stand below its sentence."""
        span = Span(found.span.start, max(found.span.stop, found.span.start + 1))
        lines = [found.message, *(f"note: {note}" for note in found.notes)]
        lines += [f"help: {found.hint}"] if found.hint is not None else []
        error = found.severity is Severity.ERROR
        return types.Diagnostic(
            range=self.range(span),
            severity=types.DiagnosticSeverity.Error if error else types.DiagnosticSeverity.Warning,
            code=found.code,
            source="sparsec",
            message="\n".join(lines),
            tags=[types.DiagnosticTag.Unnecessary] if found.code in _UNNECESSARY else None,
        )

    def hover(self, position: types.Position, settings: Settings) -> types.Hover | None:
        found = hover_at(self.document, self.offset(position), settings)
        if found is None:
            return None
        content = types.MarkupContent(types.MarkupKind.Markdown, found.markdown)
        return types.Hover(content, self.range(found.span))

    def completion(self, position: types.Position, *, snippets: bool) -> types.CompletionList:
        found = completions_at(self.document, self.offset(position))
        where = self.range(found.span)
        items = [self._completion(item, where, snippets) for item in found.items]
        return types.CompletionList(is_incomplete=False, items=items)

    def _completion(self, item: Completion, where: types.Range, snippets: bool) -> types.CompletionItem:
        snippet = item.snippet if snippets else None
        form = types.InsertTextFormat.PlainText if snippet is None else types.InsertTextFormat.Snippet
        help_ = types.MarkupContent(types.MarkupKind.Markdown, item.markdown) if item.markdown else None
        return types.CompletionItem(
            label=item.label.removesuffix(" = ") if item.kind is ItemKind.ARGUMENT else item.label,
            kind=_KINDS[item.kind],
            detail=item.detail or item.kind.value,
            documentation=help_,
            sort_text=f"{item.rank}{item.label}",
            insert_text_format=form,
            text_edit=types.TextEdit(where, item.label if snippet is None else snippet),
        )

    def signature(self, position: types.Position) -> types.SignatureHelp | None:
        call = call_at(self.document, self.offset(position))
        found = None if call is None else self._signature(call)
        if call is None or found is None:
            return None
        count = len(found.parameters or ())
        active = min(call.position, count - 1) if count else None
        return types.SignatureHelp([found], active_signature=0, active_parameter=active)

    def _signature(self, call: SurroundingCall) -> types.SignatureInformation | None:
        name = call.callee
        if name in TERMS:
            told = [(slot.name, slot_help(slot)) for slot in TERMS[name].slots]
        elif name in FUNCTIONS:
            told = [(argument, "") for argument in FUNCTIONS[name].arguments]
        else:
            symbol = self.document.names.file.get(name)
            if symbol is None or symbol.kind is not SymbolKind.PATTERN:
                return None
            own = self.document.names.items[symbol.item].symbols.values()
            told = [(each.name, "") for each in own if each.kind is SymbolKind.PARAMETER]
        label = usage(name) if name in (*TERMS, *FUNCTIONS) else f"{name}({', '.join(f'{n} = ...' for n, _ in told)})"
        parameters = [
            types.ParameterInformation(argument if argument in label else label, help_) for argument, help_ in told
        ]
        return types.SignatureInformation(label, parameters=parameters)

    def definition(self, position: types.Position) -> types.Location | None:
        symbol = self._symbol(position)
        return self._imported(position) if symbol is None else types.Location(self.uri, self.range(symbol.span))

    def references(self, position: types.Position, *, declaration: bool) -> list[types.Location]:
        """In this text; the declaration may stand in one that it imports."""
        found = [
            types.Location(self.uri, self.range(use.span))
            for use in self._uses(position)
            if declaration or use.use is not Use.DEFINITION
        ]
        elsewhere = self._imported(position) if declaration else None
        return found if elsewhere is None else [elsewhere, *found]

    def highlights(self, position: types.Position) -> list[types.DocumentHighlight]:
        kinds = {Use.DEFINITION: types.DocumentHighlightKind.Write}
        read = types.DocumentHighlightKind.Read
        return [types.DocumentHighlight(self.range(use.span), kinds.get(use.use, read)) for use in self._uses(position)]

    def _uses(self, position: types.Position) -> tuple[Occurrence, ...]:
        """The occurrences of what the name at a position means."""
        names = self.document.names
        found = names.at(self.offset(position))
        if found is None:
            return ()
        if found.symbol is not None:
            return names.of(found.symbol)
        if self.document.imported(found) is None:
            return ()
        same = (found.name, found.symbol, found.use)
        return tuple(each for each in names.occurrences if (each.name, each.symbol, each.use) == same)

    def _imported(self, position: types.Position) -> types.Location | None:
        """Where another file defines the name at a position."""
        found = self.document.names.at(self.offset(position))
        where = None if found is None else self.document.imported(found)
        uri = None if where is None else from_fs_path(where[0].name)
        if where is None or uri is None:
            return None
        places = LineIndex(where[0].text, self.positions.encoding)
        start, stop = (types.Position(*places.place(offset)) for offset in (where[1].start, where[1].stop))
        return types.Location(uri, types.Range(start, stop))

    def _symbol(self, position: types.Position) -> Symbol | None:
        found = self.document.names.at(self.offset(position))
        return None if found is None else found.symbol

    def renamable(self, position: types.Position) -> types.Range:
        """Raises RenameError."""
        return self.range(renamable(self.document, self.offset(position))[1])

    def rename(self, position: types.Position, name: str) -> types.WorkspaceEdit:
        """Raises RenameError."""
        edits = rename(self.document, self.offset(position), name)
        return types.WorkspaceEdit(changes={self.uri: self._edits(edits)})

    def formatting(self) -> list[types.TextEdit]:
        return self._edits(formatting(self.document))

    def _edits(self, edits: tuple[Edit, ...]) -> list[types.TextEdit]:
        return [types.TextEdit(self.range(edit.span), edit.text) for edit in edits]

    def actions(self, within: types.Range) -> list[types.CodeAction]:
        return [self._action(fix) for fix in fixes(self.document, self.span(within))]

    def _action(self, fix: Fix) -> types.CodeAction:
        return types.CodeAction(
            title=fix.title,
            kind=types.CodeActionKind.QuickFix,
            diagnostics=[self.diagnostic(fix.diagnostic)],
            is_preferred=fix.sure,
            edit=types.WorkspaceEdit(changes={self.uri: self._edits((fix.edit,))}),
        )

    def tokens(self) -> types.SemanticTokens:
        colours, traits = list(Colour), list(Trait)
        data: list[int] = []
        line, column = 0, 0
        for piece in coloured(self.document):
            at_line, at = self.positions.place(piece.span.start)
            length = self.positions.place(piece.span.stop)[1] - at
            bits = sum(1 << traits.index(trait) for trait in piece.traits)
            from_start = at if at_line > line else at - column
            data += [at_line - line, from_start, length, colours.index(piece.colour), bits]
            line, column = at_line, at
        return types.SemanticTokens(data)

    def symbols(self) -> list[types.DocumentSymbol]:
        return [
            types.DocumentSymbol(
                name=entry.symbol.name,
                kind=_SYMBOLS[entry.symbol.kind],
                range=self.range(entry.whole),
                selection_range=self.range(entry.symbol.span),
                detail=entry.symbol.kind.value,
                children=[
                    types.DocumentSymbol(
                        name=inner.symbol.name,
                        kind=_SYMBOLS[inner.symbol.kind],
                        range=self.range(inner.whole),
                        selection_range=self.range(inner.symbol.span),
                        detail=inner.symbol.kind.value,
                    )
                    for inner in entry.inner
                ],
            )
            for entry in outline(self.document)
        ]

    def hints(self, within: types.Range, settings: Settings) -> list[types.InlayHint]:
        """For each pattern its live share, and a link to its picture, behind the line of its name."""
        return list(self._hints(self.span(within), settings))

    def _hints(self, within: Span, settings: Settings) -> Iterator[types.InlayHint]:
        deadline = monotonic() + HINT_SECONDS
        for symbol in self.document.names.file.values():
            if symbol.kind is not SymbolKind.PATTERN or not within.start <= symbol.span.start <= within.stop:
                continue
            share = pattern_share(self.document, symbol.name, settings) if monotonic() < deadline else None
            line = self.positions.line_of(symbol.span.stop)
            end = self.positions.place(self.positions.line_stop(line))
            draw = types.Command(title="Draw the pattern", command=PICTURE, arguments=[self.uri, symbol.name])
            parts = [types.InlayHintLabelPart(value="picture", tooltip="Draw the pattern", command=draw)]
            if share is not None:
                parts.insert(0, types.InlayHintLabelPart(value=f"{share.short} ", tooltip=str(share)))
            yield types.InlayHint(position=types.Position(*end), label=parts, padding_left=True)
