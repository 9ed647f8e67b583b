"""What the grammar says: precedence, spans, numbers, ranges, statements that share a line."""

from __future__ import annotations

import logging

import pytest
from lark import Lark, logger

from sparsec._resources import read_data
from sparsec.diagnostics.source import SourceFile
from sparsec.sema.modifiers import ENTRIES, Takes
from sparsec.syntax import tree
from sparsec.syntax.expected import ITEM_STARTS
from sparsec.syntax.lexer import (
    ProblemReport,
    complete_statements,
    grammar,
    keywords,
    spellings,
    split,
    statement_starts,
)
from sparsec.syntax.parser import parse, read_source
from sparsec.testing.trees import same_tree, strip_spans


def file_of(text: str) -> tree.File:
    file, diagnostics = parse(SourceFile("t.sparse", text))
    assert file is not None, diagnostics
    return file


def expr_of(text: str) -> tree.Expr:
    (item,) = file_of(f"pattern p {{ let x = {text} }}").items
    assert isinstance(item, tree.PatternItem)
    (statement,) = item.statements
    assert isinstance(statement, tree.LetStatement)
    return statement.value


def test_the_grammar_has_no_conflicts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger=logger.name):
        Lark(read_data("grammar/sparse.lark"), parser="lalr", lexer="basic", debug=True)
    assert "conflict" not in caplog.text.lower()


def test_item_and_statement_starts_are_those_of_the_grammar() -> None:
    assert grammar().parse_interactive().accepts() == {*ITEM_STARTS, "$END"}
    starts = "heads block causal documents attend where otherwise use let input scale layers"
    assert {spellings()[terminal] for terminal in statement_starts()} == {*starts.split(), *ENTRIES}
    alone = {spellings()[terminal] for terminal in complete_statements()}
    modifiers = {name for name, entry in ENTRIES.items() if entry.takes is Takes.NOTHING or entry.alone}
    assert alone == {"causal", "documents", *modifiers}


def test_modifiers_are_those_of_the_grammar() -> None:
    rules = [rule for rule in grammar().rules if rule.alias == "modifier"]
    assert {spellings()[rule.expansion[0].name] for rule in rules} == set(ENTRIES)


@pytest.mark.parametrize(
    ("text", "grouped"),
    [
        ("a or b and c", "a or (b and c)"),
        ("not a == b and c", "(not (a == b)) and c"),
        ("a | b & c - d", "a | (b & (c - d))"),
        ("a - b - c", "(a - b) - c"),
        ("a + b * c // d % e", "a + (((b * c) // d) % e)"),
        ("-a * b", "(-a) * b"),
        ("~a & b", "(~a) & b"),
        ("g in 0..H // 2 and l", "(g in (0..(H // 2))) and l"),
        ("a | b == c | d", "(a | b) == (c | d)"),
    ],
)
def test_precedence(text: str, grouped: str) -> None:
    assert same_tree(expr_of(text), expr_of(grouped))
    assert not same_tree(expr_of("(a | b) & c"), expr_of("a | b & c"))


@pytest.mark.parametrize(
    ("text", "value", "blocks", "kilo"),
    [
        ("64", 64, False, False),
        ("4k", 4096, False, True),
        ("16b", 16, True, False),
        ("2kb", 2048, True, True),
        ("2147483647", 2147483647, False, False),
    ],
)
def test_integers(text: str, value: int, blocks: bool, kilo: bool) -> None:
    assert strip_spans(expr_of(text)) == strip_spans(tree.Integer(value, blocks, kilo, expr_of(text).span))


@pytest.mark.parametrize("text", ["[4..8, 1 .. n, a.., ..b]", "columns(.. 3, x = 0 ..)", "[1,]", "[]", "p()", "(.. 4)"])
def test_ranges_and_lists_parse(text: str) -> None:
    expr_of(text)


def test_a_closed_range_is_no_decimal() -> None:
    assert strip_spans(expr_of("4..8")) == strip_spans(expr_of("4 .. 8"))
    assert isinstance(expr_of("4.5"), tree.Decimal)
    assert isinstance(expr_of("1e-3"), tree.Decimal)


def test_spans_cover_their_text() -> None:
    text = "pattern p { let x = a | (window(4, ahead = -b) & c) }"
    value = expr_of("a | (window(4, ahead = -b) & c)")
    assert isinstance(value, tree.Binary) and isinstance(value.right, tree.Binary)

    def at(node: tree.Expr | tree.Argument) -> str:
        return text[node.span.start : node.span.stop]

    assert at(value) == "a | (window(4, ahead = -b) & c)"
    assert text[value.op_span.start : value.op_span.stop] == "|"
    assert at(value.right) == "(window(4, ahead = -b) & c)"
    call = value.right.left
    assert isinstance(call, tree.Call)
    assert [at(argument) for argument in call.arguments] == ["4", "ahead = -b"]


def test_statements_share_a_line_and_causal_is_both_statement_and_term() -> None:
    (item,) = file_of("pattern p { causal attend full causal attend causal & x documents restart alibi }").items
    assert isinstance(item, tree.PatternItem)
    kinds = [type(statement).__name__.removesuffix("Statement") for statement in item.statements]
    assert kinds == ["Causal", "Attend", "Causal", "Attend", "Documents", "Modifier"]


def test_documentation_is_the_comment_lines_directly_above() -> None:
    text = "# far\n\n# one\n#  two\npattern p { }  # behind\npattern q { }\n# own\nparam a = 1 param b = 2"
    assert [item.doc for item in file_of(text).items] == [("one", "two"), (), ("own",), ()]


def test_reading_bytes() -> None:
    source, problems = read_source("x", b"\xef\xbb\xbfpattern p { }\r\n")
    assert source is not None and not problems and source.text.startswith("pattern")
    for data, code in ((b"# \xc3\xa9\n\xff\xfe", "E001"), (b" " * ((1 << 20) + 1), "E003")):
        source, problems = read_source("x", data)
        assert source is None and [problem.code for problem in problems] == [code]
    assert read_source("x", b"# \xc3\xa9\nab\xff")[1][0].span.start == 6


def test_keywords_are_reserved() -> None:
    for keyword in keywords():
        file, diagnostics = parse(SourceFile("x", f"pattern {keyword} {{ attend full }}"))
        assert file is None and [diagnostic.code for diagnostic in diagnostics] == ["E012"]


@pytest.mark.parametrize(
    "text", ["pattern p { attend window(4kb, ahead=3)|~x }  # c\r\n", "1..2 0.5e-3 1e5 3x ..b", "\0é$=====<=>"]
)
def test_tokens_are_those_of_the_grammar_s_own_lexer(text: str) -> None:
    report = ProblemReport()
    found = split(SourceFile("t.sparse", text), report)
    assert found is not None
    left_out = ("WHITE_SPACE", "COMMENT", "UNKNOWN", "MALFORMED_NUMBER")
    expected = [token for token in grammar().lex(text, dont_ignore=True) if token.type not in left_out]
    assert [(t.type, str(t), t.start_pos, t.end_pos) for t in found.tokens if t.start_pos not in found.mended] == [
        (t.type, str(t), t.start_pos, t.end_pos) for t in expected if t.start_pos not in found.mended
    ]
