"""Bytes -> SourceFile -> syntax tree, and every problem of the text.

Lark's LALR tables drive the parse token by token. On an error the parser drops the statement at hand, skips to the next
keyword that starts a statement, or to a brace or an item, and goes on. Invariant: each recovery either consumes a token
or leaves the parser in a state that accepts the next one, so that any text ends.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from pathlib import Path

from lark import Token
from lark.parsers.lalr_analysis import Shift

from sparsec.diagnostics import codes_text as codes
from sparsec.diagnostics.model import Diagnostic
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.syntax.build import span_of
from sparsec.syntax.expected import (
    CLOSING,
    END,
    ITEM_STARTS,
    OPERATORS,
    StopPlace,
    keyword_for_name,
    keyword_like,
    rejection,
)
from sparsec.syntax.lexer import MAX_BYTES, ProblemReport, Tokens, grammar, keywords, split, statement_starts
from sparsec.syntax.limits import MAX_NESTING, definitions, excess, expressions
from sparsec.syntax.tree import NAMELESS, Comment, File, ImportItem, Integer, Item, ParamItem

_OPENING = frozenset(CLOSING.values())


def read_file(path: Path, name: str) -> tuple[SourceFile | None, tuple[Diagnostic, ...]]:
    """What `read_source` makes of the file at `path`, of which no more is read than tells that it is too large."""
    with path.open("rb") as stream:
        return read_source(name, stream.read(MAX_BYTES + 1))


def read_source(name: str, data: bytes) -> tuple[SourceFile | None, tuple[Diagnostic, ...]]:
    """The text of a file, without a byte-order mark, or why it has none: it is too large, or not UTF-8."""
    if len(data) > MAX_BYTES:
        return None, (codes.file_too_large(SourceFile(name, ""), MAX_BYTES),)
    return decode(name, data)


def decode(name: str, data: bytes) -> tuple[SourceFile | None, tuple[Diagnostic, ...]]:
    """The text of a file of any size, without a byte-order mark, or why it has none: it is not UTF-8."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return SourceFile(name, data.decode("utf-8")), ()
    except UnicodeDecodeError as error:
        start = len(data[: error.start].decode("utf-8"))
        text = data.decode("utf-8", "replace")
        others = text.count("\ufffd", start) - 1
        span = Span(start, start + 1)
        return None, (codes.invalid_utf8(SourceFile(name, text), span, data[error.start], others),)


def parse(source: SourceFile) -> tuple[File | None, tuple[Diagnostic, ...]]:
    """The tree of a file without errors, or every problem of its text."""
    file, diagnostics = recover(source)
    return (None if diagnostics else file), diagnostics


def recover(source: SourceFile) -> tuple[File, tuple[Diagnostic, ...]]:
    """What could be read of a file, and every problem of its text.

    Statements with an error are left out, and the items they belong to are marked `broken`.
    """
    report = ProblemReport()
    tokens = split(source, report)
    if tokens is None:
        return File(source, (), ()), report.close(source)
    items, damaged = _Reader(source, tokens, report).read()
    items = _documented(source, items, tokens.comments)
    items = tuple(_bounded(source, item, report) for item in items)
    for item in items:
        own = () if item.defined is None else (item.defined,)
        for name in (*own, *definitions(item)):
            if "." in name.text:
                report.add(codes.dotted_definition(source, name.span, name.text))
    faults = sorted(damaged | tokens.mended)
    marked = tuple(_marked(item, faults) for item in items)
    return File(source, marked, tokens.comments, tokens.count), report.close(source)


def stop_place(source: SourceFile, stop: int) -> StopPlace | None:
    """Where the parser stands once it has read the tokens before the offset `stop`; None for a text that is too large.

    The place's token is the end of the file, as if the text ended there.
    """
    tokens = split(SourceFile(source.name, source.text[:stop]), ProblemReport())
    if tokens is None:
        return None
    reader = _Reader(source, tokens, ProblemReport())
    end = reader.read_tokens()
    reader.report = ProblemReport()  # one that is full would hide what is accepted
    return reader.place(end)


class _Reader:
    """One pass over the tokens with lark's parser state, whose two stacks recovery cuts back."""

    def __init__(self, source: SourceFile, tokens: Tokens, report: ProblemReport) -> None:
        end = span_of(tokens.tokens[-1]).stop if tokens.tokens else 0
        self.source = source
        self.tokens = (*tokens.tokens, Token(END, "", start_pos=end, end_pos=end))
        self.mended = tokens.mended
        self.report = report
        self.parser = grammar().parse_interactive()
        self.state = self.parser.parser_state
        self.table = self.state.parse_conf.states
        self.starts = statement_starts()
        self.open: list[Token] = []  # the brackets that are open, outermost first: the item's brace, then ( and [
        self.statement: str | None = None  # the terminal that starts the statement at hand, `causal` aside
        self.item = 0  # where the item at hand starts
        self.reported = -1  # the index of the last token with an error
        self.damaged: set[int] = set()

    def read(self) -> tuple[tuple[Item, ...], set[int]]:
        """The items, and the start of each that lost a part."""
        end = self.read_tokens()
        while not self._accepts(END):
            end = self._recover(end)
        result: tuple[Item, ...] | None = self.parser.feed_token(self.tokens[end])
        assert result is not None, "the end of the file was accepted without a result"
        return result, self.damaged

    def read_tokens(self) -> int:
        """Reads all tokens but the end of the file, and gives the index of that."""
        index = 0
        while index < len(self.tokens) - 1:
            token = self.tokens[index]
            if not self._accepts(token.type):
                index = self._recover(index)
                continue
            if token.type in _OPENING and len(self.open) > MAX_NESTING:
                self._add(index, codes.nesting_too_deep(self.source, span_of(token), MAX_NESTING))
                index = self._resume(index, complete=False)
                continue
            self.parser.feed_token(token)
            self._track(token)
            index += 1
        return index

    def _track(self, token: Token) -> None:
        if token.type in _OPENING:
            self.open.append(token)
        elif token.type in CLOSING:
            self.open.pop()
        elif token.type in ITEM_STARTS:
            self.item = span_of(token).start
            self.statement = None
        elif token.type in self.starts and token.type != "CAUSAL":
            self.statement = token.type

    def _accepts(self, *kinds: str) -> bool:
        """Whether the parser would take tokens of these kinds one after the other; its stacks stay as they are."""
        below = len(self.state.state_stack)  # the part of the parser's stack that is left
        above: list[int] = []  # the states on top of it
        for kind in kinds:
            while True:
                state = above[-1] if above else self.state.state_stack[below - 1]
                if kind not in self.table[state]:
                    return False
                action, target = self.table[state][kind]
                if action is Shift:
                    above.append(target)
                    break
                size = len(target.expansion)
                below -= max(0, size - len(above))
                del above[max(0, len(above) - size) :]
                state = above[-1] if above else self.state.state_stack[below - 1]
                above.append(self.table[state][target.origin.name][1])
                if above[-1] == self.state.parse_conf.end_state:
                    return True
        return True

    def _add(self, index: int, diagnostic: Diagnostic) -> None:
        self.reported = index
        self.damaged.add(self.item)
        self.report.add(diagnostic)

    def _recover(self, index: int) -> int:
        """Reports the token that was not accepted and gives the index of the next token to feed."""
        token = self.tokens[index]
        in_body = bool(self.open) and self.open[0].type == "LBRACE"
        complete = in_body and self._accepts("RBRACE")
        follower = self.tokens[index + 1].type if token.type != END else END
        if str(token) in keywords() and self._accepts("NAME", follower):
            self._add(index, keyword_for_name(self.source, token))
            name = Token("NAME", str(token), start_pos=token.start_pos, end_pos=token.end_pos)
            self.parser.feed_token(name)
            return index + 1
        if index != self.reported and span_of(token).start not in self.mended:
            place = self.place(index)
            meant = None if self.report.full else keyword_like(place)
            if meant is not None and self._accepts(meant.type, follower):
                self.parser.feed_token(meant)
                self._track(meant)
                self._add(index, rejection(place))
                return index + 1
            # A record beyond the cap is counted and never shown, so that its sentence is not made.
            unsaid = self.report.full
            self._add(
                index, codes.unexpected_token(self.source, span_of(token), "", "") if unsaid else rejection(place)
            )
        self.damaged.add(self.item)
        if token.type == "FLOOR_DIV":  # meant as a comment: nothing on its line is read
            return self._next_line(index)
        if complete and token.type in (END, *ITEM_STARTS):
            self._close_body(index)
            return index
        return self._resume(index, complete)

    def place(self, index: int) -> StopPlace:
        """What stands at a token and what the parser would accept there."""
        before = self.tokens[index - 1] if index else None
        row = () if self.report.full else self.table[self.state.position]
        accepts = frozenset(kind for kind in row if kind.isupper() and self._accepts(kind))
        return StopPlace(self.source, self.tokens[index], before, self.statement, tuple(self.open), accepts)

    def _resume(self, index: int, complete: bool) -> int:
        """Skips to where reading can go on, and cuts the stacks back to it."""
        if self.open and self.open[0].type == "LBRACE":
            index = self._next_statement(index)
            if not complete:
                self._cut("statement")
            del self.open[1:]
            return index
        index = self._next_item(index)
        self._cut("item")
        self.open.clear()
        token = self.tokens[index]
        if token.type == "LBRACE":  # the body of an item whose head is broken
            at = span_of(token).start
            self.parser.feed_token(Token("PATTERN", "pattern", start_pos=self.item, end_pos=self.item))
            self.parser.feed_token(Token("NAME", NAMELESS, start_pos=at, end_pos=at))
        return index

    def _close_body(self, index: int) -> None:
        at = span_of(self.tokens[index - 1]).stop
        self.parser.feed_token(Token("RBRACE", "}", start_pos=at, end_pos=at))
        self.open.clear()

    def _cut(self, rule: str) -> None:
        """Drops what was read since the last state in which a `rule` may start."""
        states, values = self.state.state_stack, self.state.value_stack
        while rule not in self.table[states[-1]]:
            states.pop()
            values.pop()

    def _next_statement(self, index: int) -> int:
        """The first token from `index` on that starts a statement, closes the body, or starts an item."""
        depth = 0
        while (kind := self.tokens[index].type) not in (END, *ITEM_STARTS):
            if kind in self.starts and depth == 0 and (kind != "CAUSAL" or self._stands_alone(index)):
                break
            if kind == "RBRACE" and depth == 0:
                break
            depth += (kind == "LBRACE") - (kind == "RBRACE")
            index += 1
        return index

    def _next_line(self, index: int) -> int:
        """The first token on a later line than that of the token at `index`."""
        end = self.source.text.find("\n", span_of(self.tokens[index]).start)
        stop = end if end >= 0 else len(self.source.text)
        while self.tokens[index].type != END and span_of(self.tokens[index]).start < stop:
            index += 1
        return index

    def _stands_alone(self, index: int) -> bool:
        """Whether a `causal` is the statement: no operand of what stands beside it."""
        before, after = self.tokens[index - 1].type, self.tokens[index + 1].type
        wants_operand = (*OPERATORS, "NOT", "TILDE", "LPAR", "LSQB", "COMMA", "EQUAL", "ATTEND", "LET")
        return before not in wants_operand and after not in (*OPERATORS, "RPAR", "RSQB", "COMMA")

    def _next_item(self, index: int) -> int:
        """The first token from `index` on that starts an item, or a body before any."""
        while (kind := self.tokens[index].type) not in (END, *ITEM_STARTS, "LBRACE"):
            index = self._next_line(index) if kind == "FLOOR_DIV" else index + 1
        return index


def _bounded(source: SourceFile, item: Item, report: ProblemReport) -> Item:
    """The item without the parts that are nested or chained too deep."""
    if isinstance(item, ImportItem):
        return item
    if isinstance(item, ParamItem):
        fault = excess(source, item.parameter.default)
        if fault is None:
            return item
        report.add(fault)
        return replace(
            item, parameter=replace(item.parameter, default=Integer(1, False, False, fault.span)), broken=True
        )
    faults = [fault for part in item.parameters if (fault := excess(source, part.default)) is not None]
    for statement in item.statements:
        faults.extend(fault for expr in expressions(statement) if (fault := excess(source, expr)) is not None)
    if not faults:
        return item
    for fault in faults:
        report.add(fault)
    return replace(item, parameters=(), statements=(), broken=True)


def _documented(source: SourceFile, items: tuple[Item, ...], comments: tuple[Comment, ...]) -> tuple[Item, ...]:
    """The items with the comment lines directly above them."""
    lines = {source.line_of(comment.span.start): comment.text.strip() for comment in comments if comment.own_line}
    documented: list[Item] = []
    last_line = 0
    for item in items:
        doc: list[str] = []
        line = source.line_of(item.span.start)
        above = line - 1
        while line > last_line and above in lines:
            doc.append(lines[above])
            above -= 1
        documented.append(replace(item, doc=tuple(reversed(doc))) if doc else item)
        last_line = source.line_of(item.span.stop)
    return tuple(documented)


def _marked(item: Item, faults: list[int]) -> Item:
    """The item, `broken` if one of the sorted offsets `faults` lies in it."""
    at = bisect_left(faults, item.span.start)
    return replace(item, broken=True) if at < len(faults) and faults[at] < item.span.stop else item
