"""Any text gives a tree or diagnostics, and any tree prints to text that parses to it again."""

from __future__ import annotations

import os
import random

from hypothesis import given
from hypothesis import strategies as st

from sparsec.diagnostics.render import render_json, render_text
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.program import check
from sparsec.syntax import tree
from sparsec.syntax.equality import same_tree
from sparsec.syntax.lexer import keywords, spellings
from sparsec.syntax.parser import parse, read_source, recover
from sparsec.syntax.printer import print_file

FUZZED_TEXTS = int(os.environ.get("SPARSEC_FUZZED_TEXTS", "10000"))
AT = Span(0, 0)

SEED = """\
# S2: every group keeps another shard.
param n = 4k
pattern s2(local = 16b, every = [0, 3, 4..8]) {
    heads 32 kv 8
    block 64
    causal
    documents restart
    let near = window(local, ahead = 2) - sink(3b)
    input prefix : length
    where not g in every and (h == 1 or l >= L // 3) attend near | stride(every, phase = -g) & ~columns(0 .. prefix)
    otherwise attend full  # rest
    scale 1/128
    softcap 0.5e-3
    alibi
    learned_sink
}
model m(x = true) { layers 32 where l < 2 use s2(local = 8b) otherwise use dense }
"""


def _check(data: bytes) -> bool:
    """Checks, renders and prints the bytes; whether they gave a tree."""
    source, problems = read_source("fuzz.sparse", data)
    if source is None:
        assert problems
        return False
    _, problems = check(source)
    for problem in problems:
        assert 0 <= problem.span.start <= problem.span.stop <= len(problem.source.text)
    assert render_json(problems) and (render_text(problems, color=True) or not problems)
    partial, problems = recover(source)
    whole = print_file(partial)
    if problems:
        return False
    reparsed, problems = parse(SourceFile("fuzz.sparse", whole))
    assert reparsed is not None, render_text(problems)
    assert same_tree(partial.items, reparsed.items)
    assert len(partial.comments) == len(reparsed.comments)
    assert print_file(reparsed) == whole
    return True


def _mutated(draw: random.Random, words: list[str]) -> bytes:
    """The seed with some words dropped, doubled, swapped, replaced or joined, and sometimes a few bytes changed."""
    text = SEED.split(" ")
    for _ in range(draw.choice((0, 1, 1, 2, 3, 8, 40))):
        at = draw.randrange(len(text))
        match draw.randrange(5):
            case 0:
                del text[at]
                text = text or [""]
            case 1:
                text.insert(at, text[draw.randrange(len(text))])
            case 2:
                other = draw.randrange(len(text))
                text[at], text[other] = text[other], text[at]
            case 3:
                text[at] = draw.choice(words)
            case _:
                text.insert(at, draw.choice(words))
    data = bytearray(draw.choice((" ", " ", "\n")).join(text).encode())
    for _ in range(draw.choice((0, 0, 0, 1, 5))):
        data[draw.randrange(len(data))] = draw.randrange(256) if draw.random() < 0.3 else draw.randrange(9, 127)
    return bytes(data)


def test_mutated_texts_give_a_tree_or_diagnostics() -> None:
    words = [
        *spellings().values(),
        "x",
        "full",
        "window(4)",
        "64",
        "4k",
        "2b",
        "0.5",
        "99999999999",
        "3x",
        "# c\n",
        "$",
    ]
    draw = random.Random(20240)
    trees = sum(_check(_mutated(draw, words)) for _ in range(FUZZED_TEXTS))
    assert FUZZED_TEXTS // 20 < trees < FUZZED_TEXTS * 19 // 20, "the mutations have to reach both outcomes"


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
        st.builds(tree.Call, names, arguments, st.just(AT)),
        st.builds(tree.RangeExpr, inner, st.none() | inner, st.just(AT)),
        st.builds(tree.RangeExpr, st.none(), inner, st.just(AT)),
    )


exprs: st.SearchStrategy[tree.Expr] = st.recursive(atoms, _compound, max_leaves=12)
calls = st.builds(
    tree.Call, names, st.lists(st.builds(tree.Argument, names, exprs, st.just(AT))).map(tuple), st.just(AT)
)
arms = st.one_of(st.tuples(exprs, st.just(False)), st.tuples(st.none(), st.booleans()))
statements: st.SearchStrategy[tree.Statement] = st.one_of(
    st.builds(tree.HeadsStatement, exprs, st.none() | exprs, st.just(AT)),
    st.builds(tree.BlockStatement, exprs, st.just(AT)),
    st.builds(tree.CausalStatement, st.just(AT)),
    st.builds(tree.DocumentsStatement, st.booleans(), st.just(AT)),
    st.builds(lambda arm, term: tree.AttendStatement(*arm, term, AT), arms, exprs),
    st.builds(tree.LetStatement, names, exprs, st.just(AT)),
    st.builds(tree.InputStatement, names, names, st.just(AT)),
    st.builds(tree.ScaleStatement, exprs, st.just(AT)),
    st.builds(tree.SoftcapStatement, exprs, st.just(AT)),
    st.builds(tree.AlibiStatement, st.just(AT)),
    st.builds(tree.LearnedSinkStatement, st.just(AT)),
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
