"""Any text gives a tree or diagnostics, and any tree prints to text that parses to it again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from fuzzed_texts import KINDS, damaged, drawn_from_the_grammar, text, with_words_moved
from hypothesis import given
from hypothesis import strategies as st
from lark import UnexpectedToken
from vacuity import NIGHTLY, wanted

from sparsec import program
from sparsec.cli.main import commands
from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.diagnostics.render import render_json, render_text
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.sema.modifiers import ENTRIES, Takes
from sparsec.syntax import parser, tree
from sparsec.syntax.lexer import MAX_BYTES, grammar, keywords
from sparsec.syntax.parser import parse, read_source
from sparsec.syntax.printer import print_file
from sparsec.testing.trees import same_tree

AT = Span(0, 0)
SHARDS = 20 if NIGHTLY else 10
"""Of a thousand texts each in CI, of fifty thousand at night."""
SECONDS = 5.0
"""Of processor time, for one text: many times what any takes."""


@pytest.fixture(autouse=True)
def _each_text_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`program.check` and the round trip through the printer start from the same tree; reading is half of the work."""
    monkeypatch.setattr(parser, "recover", lru_cache(maxsize=1)(parser.recover))


def _check(data: bytes) -> bool:
    """Checks, renders and prints the bytes, and resolves what they hold; whether they gave a tree."""
    source, problems = read_source("fuzz.sparse", data)
    if source is None:
        assert problems
        return False
    checked, problems = program.check(source)
    for problem in problems:
        assert 0 <= problem.span.start <= problem.span.stop <= len(problem.source.text)
    assert render_json(problems) and (render_text(problems, color=True) or not problems)
    if checked is not None and not any(problem.severity.value == "error" for problem in problems):
        _resolve(program.Program(checked, problems, {}, {}))
    partial, problems = parser.recover(source)
    whole = print_file(partial)
    if problems:
        return False
    reparsed, problems = parse(SourceFile("fuzz.sparse", whole))
    assert reparsed is not None, render_text(problems)
    assert same_tree(partial.items, reparsed.items)
    assert len(partial.comments) == len(reparsed.comments)
    assert print_file(reparsed) == whole
    return True


def _resolve(sound: program.Program) -> None:
    """Every pattern and model of a file without errors, for head counts that its author did not think of."""
    for name in sound.patterns:
        for counts in ((None, None), (6, 3)):
            try:
                sound.pattern(name).resolve(*counts)
            except (CallError, DiagnosticError) as error:
                assert str(error)
    for name in sound.models:
        assert len(sound.model(name))


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_any_text_gives_a_tree_or_diagnostics(kind: Callable[[Random], bytes], shard: int) -> None:
    texts, trees = wanted(10 * KINDS[kind], at_night=500 * KINDS[kind]), 0
    for number in range(shard * 1_000_000, shard * 1_000_000 + texts):
        start = time.process_time()
        try:
            trees += _check(text(kind, number))
        except Exception as error:
            raise AssertionError(f"{kind.__name__} {number}: {text(kind, number)!r}") from error
        assert time.process_time() - start < SECONDS, f"{kind.__name__} {number}"
    if kind in (damaged, with_words_moved):
        assert texts // 50 < trees < texts * 49 // 50, "the damage has to reach both outcomes"
    else:
        assert trees == texts, "what the grammar derives has a tree"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_lark_s_own_parser_agrees(kind: Callable[[Random], bytes]) -> None:
    """What lark refuses has a problem; what has none is the tree that lark makes."""
    agreed = 0
    for number in range(100):
        source, _ = read_source("fuzz.sparse", text(kind, number))
        if source is None:
            continue
        file, _ = parse(source)
        try:
            expected = grammar().parse(source.text)
        except UnexpectedToken:
            assert file is None
        else:
            agreed += file is not None
            assert file is None or tuple(replace(item, doc=()) for item in file.items) == expected
    assert agreed


@pytest.mark.parametrize("number", range(40))
def test_a_file_on_disk(number: int, tmp_path: Path) -> None:
    """A program or its diagnostics from `load`, and an exit code of 0 or 1 from the command, never a traceback."""
    path = tmp_path / "fuzz.sparse"
    path.write_bytes(text((damaged, with_words_moved, drawn_from_the_grammar)[number % 3], number))
    try:
        program.load(path)
    except DiagnosticError as error:
        assert error.diagnostics
    for command in (["check"], ["check", "--format", "json"], ["fmt", "--check"]):
        run = CliRunner().invoke(commands, [*command, str(path)])
        assert run.exit_code in (0, 1) and (run.exception is None or isinstance(run.exception, SystemExit))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    _check(data)


PIECES = [*"{}()[]|&-~,.:=#\n 0kb", " attend ", " pattern ", "p ", "causal ", " = "]


@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_any_punctuation(pieces: list[str]) -> None:
    _check("".join(pieces).encode())


names = st.builds(
    tree.Name,
    st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,5}", fullmatch=True).filter(lambda n: n not in keywords()),
    st.just(AT),
)
integers = st.one_of(
    st.builds(tree.Integer, st.integers(0, 2**31 - 1), st.booleans(), st.just(False), st.just(AT)),
    st.builds(lambda n, b: tree.Integer(1024 * n, b, True, AT), st.integers(0, 2**21 - 1), st.booleans()),
)
atoms = st.one_of(
    names,
    integers,
    st.builds(tree.Decimal, st.sampled_from(["0.5", "1e-3", "2.25E+4"]), st.just(AT)),
    st.builds(tree.Boolean, st.booleans(), st.just(AT)),
    st.just(tree.Name("causal", AT)),
)
OPERATORS = ("or", "and", "==", "!=", "<", "<=", ">", ">=", "in", "|", "&", "+", "-", "*", "//", "%", "/")


def _compound(inner: st.SearchStrategy[tree.Expr]) -> st.SearchStrategy[tree.Expr]:
    some = st.lists(inner, max_size=3).map(tuple)
    arguments = st.lists(st.builds(tree.Argument, st.none() | names, inner, st.just(AT)), max_size=3).map(tuple)
    return st.one_of(
        st.builds(tree.Binary, st.sampled_from(OPERATORS), inner, inner, st.just(AT), st.just(AT)),
        st.builds(tree.Unary, st.sampled_from(("-", "~", "not")), inner, st.just(AT)),
        st.builds(tree.ListExpr, some, st.just(AT)),
        st.builds(tree.Index, inner, inner, st.just(AT)),
        st.builds(tree.Call, names, arguments, st.just(AT)),
        st.builds(tree.RangeExpr, inner, st.none() | inner, st.just(AT)),
        st.builds(tree.RangeExpr, st.none(), inner, st.just(AT)),
    )


exprs: st.SearchStrategy[tree.Expr] = st.recursive(atoms, _compound, max_leaves=12)
calls = st.builds(
    tree.Call, names, st.lists(st.builds(tree.Argument, names, exprs, st.just(AT))).map(tuple), st.just(AT)
)
lists = st.builds(tree.ListExpr, st.lists(exprs, max_size=3).map(tuple), st.just(AT))
arms = st.one_of(st.tuples(exprs, st.just(False)), st.tuples(st.none(), st.booleans()))
GIVEN = {
    Takes.NOTHING: st.none(),
    Takes.NUMBER: exprs,
    Takes.NUMBERS_OF_HEADS: st.none() | names | lists,
    Takes.INPUT: names,
}
statements: st.SearchStrategy[tree.Statement] = st.one_of(
    st.builds(tree.HeadsStatement, exprs, st.none() | exprs, st.just(AT)),
    st.builds(tree.BlockStatement, exprs, st.just(AT)),
    st.builds(tree.CausalStatement, st.just(AT)),
    st.builds(tree.DocumentsStatement, st.booleans(), st.just(AT)),
    st.builds(lambda arm, term: tree.AttendStatement(*arm, term, AT), arms, exprs),
    st.builds(tree.LetStatement, names, exprs, st.just(AT)),
    st.builds(tree.InputStatement, names, names | calls, st.just(AT)),
    st.builds(tree.ScaleStatement, exprs, st.just(AT)),
    st.sampled_from(list(ENTRIES.values())).flatmap(
        lambda entry: st.builds(tree.ModifierStatement, st.just(entry.keyword), GIVEN[entry.takes], st.just(AT))
    ),
    st.builds(tree.LayersStatement, exprs, st.just(AT)),
    st.builds(lambda arm, used: tree.UseStatement(*arm, used, AT), arms, names | calls),
)
parameters = st.builds(tree.Parameter, names, exprs, st.just(AT))
bodies = (names, st.lists(parameters, max_size=2).map(tuple), st.lists(statements, max_size=4).map(tuple))
items: st.SearchStrategy[tree.Item] = st.one_of(
    st.builds(tree.ParamItem, parameters, st.just(()), st.just(AT)),
    st.builds(tree.PatternItem, *bodies, st.just(()), st.just(AT)),
    st.builds(tree.ModelItem, *bodies, st.just(()), st.just(AT)),
)


@given(st.lists(items, max_size=3).map(tuple))
def test_any_tree_prints_and_parses_again(drawn: tuple[tree.Item, ...]) -> None:
    text = print_file(tree.File(SourceFile("", ""), drawn, ()))
    file, problems = parse(SourceFile("t.sparse", text))
    assert file is not None, f"{text}\n{render_text(problems)}"
    assert same_tree(file.items, drawn), text
    assert print_file(file) == text


def test_a_file_without_an_end_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "endless.sparse"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(DiagnosticError, match=f"E003.*more than {MAX_BYTES} bytes"):
        program.load(path)
