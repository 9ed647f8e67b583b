"""Patterns instantiated for head counts: parameters, names, references, and what a caller can get wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sparsec
from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.sema import model
from sparsec.sema.model import At, Causal, Intersection, Origin, Sink, Stride, Term, Union, Window
from sparsec.sema.modifiers import Softcap

S2 = """
pattern s2(local = 16b, every = 16b) {
    heads 32 kv 8
    causal
    attend window(local) | stride(every, phase = -g)
}
"""


def leaves(term: Term) -> list[str]:
    match term:
        case At(_, origin):
            return [origin.text]
        case model.Union(terms) | model.Intersection(terms):
            return [text for part in terms for text in leaves(part)]
        case model.Difference(left, right):
            return leaves(left) + leaves(right)
        case model.Complement(part):
            return leaves(part)
    raise AssertionError(term)


def first(text: str, heads: int | None = 1, **params: object) -> list[str]:
    return leaves(sparsec.parse(text).pattern("p", **params).resolve(heads).terms[0])  # type: ignore[arg-type]


def test_terms_and_origins() -> None:
    heads = sparsec.parse(S2).pattern("s2", every="8b").resolve()
    window = At(Window(16, 0, True), Origin(5, "window(16b)"))
    stride = At(Stride(8, 7, True), Origin(5, "stride(8b, phase=7)"))
    assert heads.terms[4] == Intersection((Union((window, stride)), At(Causal(), Origin(4, "causal"))))
    assert len({id(term) for term in heads.terms}) == 8
    assert heads.terms[4] is heads.terms[7]
    assert (heads.heads, heads.kv_heads, heads.block) == (32, 8, 64)


def test_names_and_operators() -> None:
    text = """
    param base = 4
    param twice = base * 2
    pattern p(n = twice, m = n + 1, some = [0, 4..8]) {
        heads 12 kv 3
        block 32
        let far = max(n, m) * 2b
        where h in some and not (g == 2) attend window(far) | sink(tokens(far)) | chunk(2b, back = H // G)
        where h % 2 == 0 or false        attend columns(-m .. -1) - rows(1b ..)
        otherwise                        attend stride(7 % -4 + 8, phase = -1) | dilated(2kb, phase = 2049)
    }
    """
    pattern = sparsec.parse(text).pattern(base=5)
    heads = pattern.resolve()
    assert leaves(heads.terms[0]) == ["window(22b)", "sink(704)", "chunk(64, back=4)"]
    assert leaves(heads.terms[2]) == ["columns(-11..-1)", "rows(1b..)"]
    assert leaves(heads.terms[9]) == ["stride(7, phase=6)", "dilated(2048b, phase=1)"]


def test_named_patterns() -> None:
    text = """
    pattern p(size = 4) { block 32  attend q(n = size + h) | q | ~r }
    pattern q(n = 2) { causal  where h == 0 attend window(n)  otherwise attend sink(n) }
    pattern r { attend chunk(2b) }
    """
    heads = sparsec.parse(text).pattern("p").resolve(2)
    assert leaves(heads.terms[0]) == ["window(4)", "causal", "window(2)", "causal", "chunk(64)"]
    assert leaves(heads.terms[1]) == ["sink(5)", "causal", "sink(2)", "causal", "chunk(64)"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"n": 9}, ["sink(9)", "window(2b)"]),
        ({"n": "4k"}, ["sink(4096)", "window(2b)"]),
        ({"n": "2 * 8"}, ["sink(16)", "window(2b)"]),
        ({"far": "1kb"}, ["sink(4)", "window(1024b)"]),
        ({"flag": "false", "some": [0]}, ["none"]),
        ({"flag": False, "some": "[0, 3..5]"}, ["none"]),
        ({"flag": False, "some": [7, range(0, 2)]}, ["none"]),
    ],
)
def test_overrides(given: dict[str, object], text: list[str]) -> None:
    arms = "where flag attend sink(n) | window(far)\n", "where flag or h in some attend none\n"
    source = "pattern p(n = 4, far = 2b, flag = true, some = [1]) {{ {} }}".format(arms["flag" in given])
    assert first(source, **given) == text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"evry": "8b"}, "did you mean 'every'"),
        ({"every": 8}, 'expected a length in blocks such as "8b", got 8'),
        ({"every": "8k"}, "expected a length in blocks such as 8b, got '8k'"),
        ({"every": "8"}, "expected a length in blocks"),
        ({"every": True}, "expected a length in blocks"),
        ({"every": "window(3)"}, "expected a length in blocks"),
        ({"every": "8b } pattern q { attend full"}, "expected a length in blocks"),
        ({"every": "8b\npattern q { attend full }"}, "expected a length in blocks"),
        ({"every": "1b // 0"}, "divides by zero"),
        ({"every": "h * 1b"}, "has no value"),
        ({"every": "99999999999b"}, "over 2147483647"),
        ({"every": 1.5}, "expected a length in blocks"),
        ({"every": None}, "expected a length in blocks"),
    ],
)
def test_wrong_overrides(given: dict[str, object], message: str) -> None:
    with pytest.raises(CallError, match=message):
        sparsec.parse(S2).pattern(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("True", "true, got 'True'"), (1, "True, got 1")],
)
def test_a_boolean_is_written_as_it_was_given(given: object, expected: str) -> None:
    with pytest.raises(CallError, match=f"expected a boolean such as {expected}"):
        sparsec.parse("pattern p(on = true) { attend full }").pattern(on=given)  # type: ignore[arg-type]


def test_values_that_a_call_makes_wrong() -> None:
    with pytest.raises(DiagnosticError, match="E403"):
        sparsec.parse(S2).pattern(every="0b").resolve()
    arms = sparsec.parse("pattern p { where h < 4 attend full  otherwise attend sink(4) }").pattern()
    assert arms.resolve(5).heads == 5
    with pytest.raises(DiagnosticError, match="E409"):
        arms.resolve(4)
    with pytest.raises(DiagnosticError, match="E401"):
        sparsec.parse("pattern p { attend window(8 // h) }").pattern().resolve(2)


def test_head_counts() -> None:
    pattern = sparsec.parse(S2).pattern()
    assert (pattern.heads, pattern.kv_heads, pattern.block) == (32, 8, 64)
    assert pattern.resolve(32, 8) == pattern.resolve()
    for counts in ((16, None), (None, 4), (True, None), (0, None)):
        with pytest.raises(CallError, match="expected"):
            pattern.resolve(*counts)
    free = sparsec.parse("pattern p { attend window(H // G) }").pattern()
    assert (free.heads, free.kv_heads) == (None, None)
    assert leaves(free.resolve(8, 2).terms[0]) == ["window(4)"]
    assert free.resolve(8).kv_heads == 8
    for counts in ((None, None), (8, 3), (4097, None), (8, 0)):
        with pytest.raises(CallError, match="expected"):
            free.resolve(*counts)


def test_models() -> None:
    text = (
        S2
        + """
    pattern dense { heads 32 kv 8  causal  attend full }
    model m(layers_ = 6) {
        layers layers_
        where l >= L // 3 and l < 2 * L // 3 use dense
        otherwise use s2(local = (l + 1) * 1b)
    }
    """
    )
    program = sparsec.parse(text)
    layers = program.model("m")
    assert [layers.layer(layer).name for layer in range(len(layers))] == ["s2", "s2", "dense", "dense", "s2", "s2"]
    assert layers.layer(2) is layers.layer(3)
    assert leaves(layers.layer(5).resolve().terms[0])[0] == "window(6b)"
    assert len(program.model(layers_=9)) == 9
    with pytest.raises(CallError, match="between 0 and 5, got 6"):
        layers.layer(6)
    with pytest.raises(CallError, match="'layer_'"):
        program.model(layer_=3)
    with pytest.raises(CallError, match="one of: s2, dense"):
        program.pattern()
    with pytest.raises(CallError, match="one of: s2, dense; got 's3'"):
        program.pattern("s3")


def test_inputs_and_score() -> None:
    text = """pattern p {
        input prefix : length
        documents restart
        scale 1/128
        softcap 30
        attend sink(prefix) | columns(0 .. prefix) | q
    }
    pattern q { input marks : tokens  attend marks & window(4) }
    """
    heads = sparsec.parse(text).pattern("p").resolve(1)
    assert leaves(heads.terms[0]) == ["sink(input0)", "columns(0..input0)", "input1", "window(4)"]
    assert [(decl.name, decl.kind.value) for decl in heads.inputs] == [("prefix", "length"), ("marks", "tokens")]
    assert heads.documents is model.Documents.RESTART
    assert heads.score == model.Score(1 / 128, (Softcap(30.0),))


def test_no_user_text_in_origins() -> None:
    assert first("pattern p(evil = 3) { let x = evil  attend window(x) }") == ["window(3)"]


def test_zero_fits_either_unit() -> None:
    assert first("pattern p { attend columns(0 .. 4b) | window(2b, ahead = 0) | sink(0) }") == [
        "columns(0b..4b)",
        "window(2b)",
        "sink(0)",
    ]
    assert isinstance(sparsec.parse("pattern p { attend sink(0b) }").pattern().resolve(1).terms[0], At)
    assert Sink(0, True) != Sink(0, False)


@pytest.mark.kernels
def test_import_is_light() -> None:
    code = "import sys, sparsec; sparsec.parse('pattern p { attend full }').pattern().resolve(4)"
    code += "; assert not {'torch', 'triton', 'jinja2', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_value_that_only_the_callers_kv_heads_decide_is_no_problem_of_the_file() -> None:
    text = "pattern p { heads 6  attend window(4 - g) }"
    pattern = sparsec.parse(text).pattern()
    assert len(pattern.resolve(kv_heads=3).terms) == 6
    with pytest.raises(DiagnosticError, match="E403"):
        pattern.resolve(kv_heads=6)
