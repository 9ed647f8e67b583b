"""Expressions printed as C++: compiled, they agree with their interpreter; the source is stable and harmless."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest

from sparsec.backends.cpu.emit import comment, emit_cpp, emit_cpp_backward
from sparsec.backends.cpu.expr import condition, name_of, scalar, vector_mask
from sparsec.backends.cpu.kernel import compile_shared, has_compiler
from sparsec.backends.cpu.source import joined_headers
from sparsec.ir.expr import nodes as x
from sparsec.ir.expr import simplify
from sparsec.ir.expr.evaluate import holds
from sparsec.ir.expr.nodes import Int, Var
from sparsec.ir.tiles.program import ListSpec, Segment, TileProgram
from sparsec.plan.kernel import BackwardPlan, HeadClass, KernelPlan
from sparsec.sema.model import Score

ROW, KEY, C = Var("i"), Var("j"), Var("c")


def plan(live: x.Bool = x.TRUE, origin: str = "line 1: full") -> KernelPlan:
    tiles = simplify.ceil_div(Var("nk"), Int(32), nonneg=True)
    segment = Segment(tiles, Var("n"), x.TRUE, True, None, origin)
    program = TileProgram(16, 32, (), (), (segment,), live, ())
    return KernelPlan(2, 1, 8, 8, "float32", Score(), (HeadClass((0, 1), (("c", (5, 7)),), program, (origin,)),))


@pytest.mark.parametrize(
    ("expr", "printed"),
    [
        (x.Sub(ROW, x.Sub(KEY, Int(-3))), "i - (j - -3)"),
        (x.Mul(x.Add(ROW, KEY), Int(3)), "(i + j) * 3"),
        (x.FloorDiv(x.Add(ROW, KEY), Int(64), nonneg=False), "((i + j) >> 6)"),
        (x.Mod(ROW, Int(16), nonneg=False), "(i & 15)"),
        (x.FloorDiv(ROW, C, nonneg=True), "i / c"),
        (x.Mod(ROW, Int(7), nonneg=False), "floor_mod(i, 7)"),
        (x.Sub(ROW, x.FloorDiv(KEY, Int(3), nonneg=True)), "i - j / 3"),
        (x.Select(x.Less(ROW, KEY), ROW, Int(4)), "((i < j) ? i : 4)"),
    ],
)
def test_scalars(expr: x.Expr, printed: str) -> None:
    assert scalar(expr) == printed


def test_masks_widen_what_does_not_depend_on_i() -> None:
    early = x.Less(KEY, Int(4))
    assert vector_mask(x.And(x.Less(KEY, ROW), x.Or(early, x.Listed(0)))) == "((j < i) & truth(((j < 4) | listed_0)))"
    assert vector_mask(x.Not(x.Less(x.Min(ROW, KEY), Int(2)))) == "~(minimum(i, splat(j)) < 2)"
    assert vector_mask(early) == "splat(truth(j < 4))"
    assert condition(x.Not(early)) == "!(j < 4)"
    assert vector_mask(x.And(x.Less(ROW, Int(4)), x.Less(KEY, ROW)), "j") == "(truth(i < 4) & (j < i))"


def test_names_keep_clear_of_the_template() -> None:
    assert [name_of(name) for name in ("count", "if", "c0")] == ["count_", "if_", "c0"]
    with pytest.raises(AssertionError):
        name_of("a; b")


EXPRESSIONS: tuple[x.Expr, ...] = (
    x.FloorDiv(x.Sub(ROW, KEY), Int(8), nonneg=False),
    x.FloorDiv(x.Sub(ROW, KEY), Int(7), nonneg=False),
    x.Mod(x.Sub(ROW, KEY), Int(8), nonneg=False),
    x.Mod(x.Sub(ROW, KEY), Int(7), nonneg=False),
    x.Mod(x.Sub(KEY, ROW), C, nonneg=False),
    x.FloorDiv(x.Add(ROW, Int(100)), C, nonneg=True),
    x.Max(x.Min(ROW, KEY), x.Sub(Int(0), C)),
    x.Select(x.Less(ROW, x.Mul(KEY, C)), ROW, x.Sub(KEY, Int(1))),
    x.Select(x.Less(KEY, C), x.Sub(ROW, x.Sub(ROW, KEY)), Int(-2)),
    x.Mul(x.Add(ROW, KEY), x.Sub(ROW, C)),
)
CONDITIONS: tuple[x.Bool, ...] = (
    x.Less(x.Sub(ROW, KEY), C),
    x.Not(x.And(x.Less(KEY, ROW), x.Less(KEY, C))),
    x.Or(x.Not(x.Less(KEY, Int(2))), x.And(x.Less(ROW, Int(0)), x.TRUE)),
)


@pytest.mark.kernels
@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_compiled_expressions_agree_with_the_interpreter() -> None:
    """Each as a scalar, and as lane 1 of a vector over i, on every sign of i - j."""
    tests = [*(x.Less(e, Int(1)) for e in EXPRESSIONS), *CONDITIONS]
    vectors = joined_headers(("vectors.h",), {"printed/config.h": "constexpr int LANE_TILE = 16;"})
    body = "".join(
        f'extern "C" int scalar_{n}(int i, int j, int c) {{ return {condition(test)}; }}\n'
        f'extern "C" int lane_{n}(int i0, int j, int c) {{\n'
        f"  const ivec i = splat(i0) + 0 * c; const ivec m = {vector_mask(test)}; return -m[1]; }}\n"
        for n, test in enumerate(tests)
    )
    headers = "".join(f"#include <{name}>\n" for name in vectors.includes)
    library = ctypes.CDLL(str(compile_shared(headers + vectors.text + body, optimise=1)))
    for n, test in enumerate(tests):
        for i, j, c in itertools.product((-20, -7, -1, 0, 1, 8, 30), (0, 1, 7, 31), (1, 3, 16)):
            wanted = holds(test, {"i": i, "j": j, "c": c})
            assert bool(library[f"scalar_{n}"](i, j, c)) == wanted, (test, i, j, c)
            assert bool(library[f"lane_{n}"](i, j, c)) == wanted, (test, i, j, c)


@pytest.mark.kernels
@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_powers_and_logarithms_are_as_exact_as_they_say() -> None:
    """Of every lane, on numbers of every binary order, around the edges of the polynomials and at both ends."""
    vectors = joined_headers(("vectors.h",), {"printed/config.h": "constexpr int LANE_TILE = 16;"})
    body = """
    extern "C" void both(float* x, float* y, int count) {
      for (int n = 0; n < count; n += LANES) {
        vec power[1] = {load(y + n)};
        exp2(power, splat(LOWEST_EXPONENT));
        store(y + n, power[0]);
        store(x + n, log2(load(x + n)));
      }
    }"""
    headers = "".join(f"#include <{name}>\n" for name in vectors.includes)
    library = ctypes.CDLL(str(compile_shared(headers + vectors.text + body, optimise=2)))
    steps = np.linspace(1, 2, 4096, endpoint=False)
    x = np.concatenate([steps * 2.0**n for n in (-126, -20, -1, 0, 1, 20, 127)]).astype(np.float32)
    x[-4:] = np.inf, np.nan, 2**-126, 1
    y = np.linspace(-126, 100, len(x)).astype(np.float32)
    y[-4:] = -np.inf, np.nan, 0, 100
    logarithm, power = x.copy(), y.copy()
    library.both(*(ctypes.c_void_p(each.ctypes.data) for each in (logarithm, power)), ctypes.c_int(len(x)))
    assert logarithm[-4] == np.inf and np.isnan(logarithm[-3]) and list(logarithm[-2:]) == [-126, 0]
    assert power[-4] == 0 and np.isnan(power[-3]) and power[-2] == 1
    x, y, logarithm, power = (each[:-4].astype(np.float64) for each in (x, y, logarithm, power))
    wanted = np.log2(x)
    assert (np.abs(logarithm - wanted) <= 1e-7 + np.spacing(np.abs(wanted).astype(np.float32)) / 2).all()
    assert (np.abs(power / 2**y - 1) <= 1.1e-7 + 2.0**-24).all()


def test_the_source_is_stable_and_names_its_symbol() -> None:
    source = emit_cpp(plan(simplify.at_most(KEY, ROW)), symbol="other")
    assert source == emit_cpp(plan(simplify.at_most(KEY, ROW)), symbol="other")
    assert 'extern "C" int other_forward(const sparsec_call* call)' in source
    assert "static const int c_of_head[HEADS] = {5, 7};" in source
    assert not [line for line in source.splitlines() if line != line.rstrip() or len(line) > 140]


def test_the_gradients_find_their_tables_by_the_draws_of_a_head() -> None:
    """Forward and transposed classes may group heads, and order rows, in their own ways."""

    def drawing(heads: tuple[int, ...], rows: tuple[int, ...], lanes: tuple[tuple[int, int], ...]) -> HeadClass:
        segment = Segment(Int(3), Var("n"), x.Listed(0), True, None, "line 1: random")
        program = TileProgram(16, 16, (), (), (segment,), x.Listed(0), (ListSpec(2, 32, lanes, "row0"),))
        return HeadClass(heads, (("row0", rows),), program, ())

    forward = (drawing((0, 2), (0, 1), ((7, 0), (7, 2))), drawing((1,), (0,), ((7, 1),)))
    transposed = (drawing((0, 1, 2), (2, 1, 0), ((7, 2), (7, 1), (7, 0))),)
    source = emit_cpp_backward(
        BackwardPlan(KernelPlan(3, 1, 8, 8, "float32", Score(), forward), transposed), symbol="other"
    )
    assert 'extern "C" int other_backward(const sparsec_backward_call* call)' in source
    assert "static const int table0_of_head[HEADS] = {0, 1, 0};" in source
    assert "static const int row0_of_head[HEADS] = {0, 0, 1};" in source
    assert "draws(lists[table0], row0, ((base + tile * 16) >> 5), 2), 2, (j0 >> 5))" in source


@pytest.mark.parametrize("text", ['x\n#include "/etc/passwd"', "a \\", "*/ int x;", "é\u202e\x00", "??/"])
def test_an_origin_stays_inside_its_comment(text: str) -> None:
    assert not set("\\?") & set(comment(text)) and "\n" not in comment(text) and comment(text).isascii()
    harmless = emit_cpp(plan(origin=comment(text)))
    assert emit_cpp(plan(origin=text)) == harmless
    assert harmless.count("\n") == emit_cpp(plan()).count("\n")


@pytest.mark.parametrize("symbol", ["", "1a", "a b", "a;", "A"])
def test_a_symbol_is_a_plain_name(symbol: str) -> None:
    with pytest.raises(ValueError, match="symbol"):
        emit_cpp(plan(), symbol=symbol)
