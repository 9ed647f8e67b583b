"""Expressions as Triton prints them, and the text of whole modules."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sparsec.backends.triton.emit import (
    emit_triton,
    emit_triton_backward,
    loop_view,
    query_side,
)
from sparsec.backends.triton.expr import assignment
from sparsec.ir.expr import nodes as x
from sparsec.ir.expr import simplify
from sparsec.ir.expr.evaluate import evaluate
from sparsec.ir.tiles.program import Segment, TileProgram
from sparsec.pipeline import Lowered
from sparsec.plan.kernel import HeadClass, KernelPlan
from sparsec.sema import model as m
from sparsec.sema.modifiers import Alibi, LearnedSink, Softcap

A, B, C = x.Var("a"), x.Var("b"), x.Var("c")
NAMES = {"a": "a", "b": "b", "c": "c"}
TRUNCATING = """
def truncated(left, right):
    return abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)

def floor_div(left, right):
    quotient = truncated(left, right)
    return quotient - 1 if left < quotient * right else quotient

def floor_mod(left, right):
    remainder = left - truncated(left, right) * right
    return remainder + right if remainder < 0 else remainder
"""


def printed(value: x.Expr | x.Bool) -> str:
    (line,) = assignment("r", value, NAMES)
    return line.removeprefix("r = ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (x.Sub(A, x.Add(B, x.Int(-3))), "a - (b + (-3))"),
        (x.Mul(x.Add(A, B), C), "(a + b) * c"),
        (x.FloorDiv(A, x.Int(64), False), "a >> 6"),
        (x.Mod(x.Add(A, B), x.Int(8), False), "(a + b) & 7"),
        (x.FloorDiv(A, x.Int(3), True), "a // 3"),
        (x.FloorDiv(A, x.Int(3), False), "floor_div(a, 3)"),
        (x.Mod(A, x.Int(3), False), "floor_mod(a, 3)"),
        (x.Select(x.Less(A, B), x.Min(A, C), x.Max(B, C)), "tl.where(a < b, tl.minimum(a, c), tl.maximum(b, c))"),
        (x.And(x.Less(A, B), x.Or(x.Less(B, C), x.Listed(0))), "(a < b) & ((b < c) | listed_0)"),
        (x.Not(x.And(x.Less(A, B), x.Listed(1))), "(a >= b) | (listed_1 == 0)"),
        (x.Not(x.Or(x.Not(x.Less(A, B)), x.Truth(True))), "(a < b) & False"),
    ],
)
def test_prints(value: x.Expr | x.Bool, text: str) -> None:
    assert printed(value) == text


def test_wide_expressions_are_cut_into_parts_that_mean_the_same() -> None:
    value: x.Expr = A
    for n in range(40):
        value = x.Max(x.Sub(value, x.FloorDiv(B, x.Int(n + 2), False)), x.Mod(C, x.Int(n + 3), False))
    lines = assignment("r", value, NAMES)
    assert len(lines) > 1 and max(map(len, lines)) <= 112
    for a, b, c in ((5, -7, 11), (-100, 3, -1)):
        scope = {"a": a, "b": b, "c": c, "tl": type("tl", (), {"maximum": max, "minimum": min})}
        exec(compile(TRUNCATING + "\n".join(lines), "generated", "exec"), scope)
        assert scope["r"] == evaluate(value, {"a": a, "b": b, "c": c})


def heads(documents: m.Documents = m.Documents.NONE, score: m.Score | None = None) -> m.ResolvedPattern:
    local, apart = m.At(m.Window(4, 0, True), m.Origin(6, "window(4b)")), m.Random(3, 1, 0)
    terms = tuple(
        m.Intersection((m.Causal(), m.Union((local, m.Stride(8, h % 8, True) if h else apart)))) for h in range(4)
    )
    return m.ResolvedPattern(4, 2, terms, 64, (), documents, score or m.Score())


def plan(head_dim: int = 64) -> KernelPlan:
    return Lowered(heads()).plan_forward(head_dim=head_dim, dtype="bfloat16", query_tile=64, key_tile=32)


def test_one_kernel_a_class() -> None:
    source = emit_triton(plan())
    functions = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    expected = ["forward_0_tile", "forward_0", "forward_1_tile", "forward_1"]
    assert [name for name in functions if name.startswith("forward_")] == expected
    assert "# line 6: window(4b)" in source
    assert source == emit_triton(plan())


def test_the_gradients_of_a_group_in_two_classes_are_added_up() -> None:
    made = Lowered(heads()).plan_backward(head_dim=64, dtype="bfloat16", query_tile=64, key_tile=32)
    assert [head_class.heads for head_class in made.transposed] == [(0,), (1, 2, 3)]
    source = emit_triton_backward(made)
    functions = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    of_queries = [f"grad_queries_{n}{end}" for n in (0, 1) for end in ("_tile", "")]
    parts = [[f"{each}_grad_keys_{n}" for each in ("count", "join")] if made.transposed[n].long else [] for n in (0, 1)]
    of_keys = [each for n in (0, 1) for each in (*parts[n], f"grad_keys_{n}_tile", f"grad_keys_{n}")]
    kernels = ["row_sums", *of_queries, *of_keys, "key_mass_0", "key_mass_1"]
    assert functions[-len(kernels) :] == kernels and any(parts)
    assert "k_to, k_offsets, owned, attempt, K_CHUNKS, PIECE, HEAD_DIM, True" in source
    assert source == emit_triton_backward(made)


def test_the_gradients_of_a_group_in_one_class_are_written_at_once() -> None:
    terms = (m.Causal(),) * 4
    pattern = m.ResolvedPattern(4, 2, terms, 64, (), m.Documents.NONE, m.Score())
    made = Lowered(pattern).plan_backward(head_dim=64, dtype="bfloat16", query_tile=64, key_tile=32)
    source = emit_triton_backward(made)
    assert "k_to, k_offsets, owned, attempt, K_CHUNKS, PIECE, HEAD_DIM, False" in source


ALL = m.Score(None, (Softcap(50.0), Alibi(), LearnedSink()))


@pytest.mark.kernels
@pytest.mark.skipif(shutil.which("ruff") is None, reason="needs ruff")
@pytest.mark.parametrize("score", [None, ALL], ids=["plain", "modified"])
@pytest.mark.parametrize("documents", list(m.Documents))
@pytest.mark.parametrize(("head_dim", "dtype"), [(64, "bfloat16"), (72, "float32")])
def test_is_formatted(head_dim: int, dtype: str, documents: m.Documents, score: m.Score | None, tmp_path: Path) -> None:
    given = {"head_dim": head_dim, "dtype": dtype, "query_tile": 64, "key_tile": 32}
    pattern = heads(documents, score)
    (tmp_path / "forward.py").write_text(emit_triton(Lowered(pattern).plan_forward(**given)), encoding="utf-8")
    (tmp_path / "backward.py").write_text(
        emit_triton_backward(Lowered(pattern).plan_backward(**given)), encoding="utf-8"
    )
    run = subprocess.run(
        ["ruff", "format", "--isolated", "--line-length", "120", "--diff", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("jumps", [(3, 4, 5), (3, 4, 5, 9, 20, 21, 40)])
def test_the_runs_of_a_loop_visit_their_tiles(jumps: tuple[int, ...]) -> None:
    """Few runs are told apart by comparisons, many by a vector; both give the same tiles, empty runs among them."""
    counts = [n % 3 for n in range(len(jumps))]
    segments = tuple(
        Segment(x.Int(count), simplify.add(x.Int(jump), x.Var("n")), x.TRUE, True, None, "")
        for jump, count in zip(jumps, counts, strict=True)
    )
    view = loop_view(
        "full", segments, TileProgram(16, 16, (), segments, (), x.TRUE, ()), {}, (), query_side(m.Documents.NONE)
    )
    scope: dict[str, object] = {"tl": Vectors}
    exec("\n".join(line for segment in view.segments for line in segment.count_lines), scope)
    found = []
    for iteration in range(int(str(scope[view.total]))):
        for segment in view.segments:
            lines = [f"n = {iteration} - {segment.first}", *segment.lines]
            exec("\n".join(lines), scope)
        found.append(scope["tile"])
    expected = [jump + n for jump, count in zip(jumps, counts, strict=True) for n in range(count)]
    assert [int(str(tile)) for tile in found] == expected


class Vectors:
    """What the lines ask of Triton's language, by NumPy."""

    int32 = np.int32
    arange = staticmethod(np.arange)
    where = staticmethod(np.where)
    sum = staticmethod(np.sum)

    @staticmethod
    def zeros(shape: list[int], dtype: type) -> np.ndarray:
        return np.zeros(shape, dtype)


@pytest.mark.parametrize("origin", ["4 x\nimport os", "4 \u2028", '4 """'])
def test_an_origin_cannot_leave_its_comment(origin: str) -> None:
    segment = Segment(x.ONE, x.Var("n"), x.TRUE, True, None, origin)
    program = TileProgram(16, 16, (), (segment,), (), x.TRUE, ())
    with pytest.raises(ValueError, match="comment"):
        emit_triton(KernelPlan(1, 1, 16, 16, "float32", m.Score(), (HeadClass((0,), (), program, ()),)))


@pytest.mark.parametrize("name", ["a b", "a;b", "__import__", ""])
def test_a_name_has_to_be_one(name: str) -> None:
    program = TileProgram(16, 16, (x.Let(name, x.ONE),), (), (), x.TRUE, ())
    with pytest.raises(ValueError, match="name"):
        emit_triton(KernelPlan(1, 1, 16, 16, "float32", m.Score(), (HeadClass((0,), (), program, ()),)))


def test_a_let_named_like_a_variable_of_the_template_is_renamed() -> None:
    program = TileProgram(16, 16, (x.Let("head", x.Int(3)),), (), (), simplify.less(x.Var("j"), x.Var("head")), ())
    segment = Segment(x.ONE, x.Var("n"), x.TRUE, True, None, "")
    program = TileProgram(16, 16, program.lets, (), (segment,), program.live, ())
    source = emit_triton(KernelPlan(1, 1, 16, 16, "float32", m.Score(), (HeadClass((0,), (), program, ()),)))
    assert "    head_ = 3\n" in source and "upper = tl.minimum(head_, nk)\n" in source
