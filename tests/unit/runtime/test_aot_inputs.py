"""Kernels of patterns with inputs, compiled ahead of time: they find room, and take their products by tensor cores.

Every kind of input for one target, and for the others those whose pairs are looked up each in another way. Forward
kernels spill nothing.
"""

from __future__ import annotations

import os

import pytest
from spilling import MOST, NONE_OR_FEW

from sparsec.backends.triton.backend import BACKEND
from sparsec.pipeline import Compilation, Lowered
from sparsec.sema import model as m
from sparsec.sema.modifiers import KeyBias

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [pytest.mark.kernels, pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")]
K, U = m.InputKind, m.InputUnit
KINDS = {
    each.name: each
    for each in (
        m.InputDecl("tokens", K.TOKENS, 1, 1),
        m.InputDecl("columns", K.COLUMNS, 1, 1),
        m.InputDecl("columns_blocks", K.COLUMNS, 1, 1, U.BLOCKS),
        m.InputDecl("slashes", K.SLASHES, 1, 1),
        m.InputDecl("slashes_blocks", K.SLASHES, 1, 1, U.BLOCKS),
        m.InputDecl("slashes_tiles", K.SLASHES, 1, 1, U.TILES),
        m.InputDecl("rows", K.ROWS, 1, 1),
        m.InputDecl("rows_blocks", K.ROWS, 1, 1, U.BLOCKS),
        m.InputDecl("blocks", K.BLOCKS, 1, 1),
        m.InputDecl("blocks_m_n", K.BLOCKS, 1, 1, tile=(128, 32)),
        m.InputDecl("labels", K.LABELS, 1, 1),
        m.InputDecl("tree", K.TREE, 1, 1),
        m.InputDecl("length", K.LENGTH, 1, 1),
        m.InputDecl("weights", K.WEIGHTS, 1, 1),
    )
}
OTHERS = (
    *(("cuda:80", 128, name) for name in ("tree", "rows", "columns")),
    *(("cuda:100", 128, name) for name in ("slashes", "labels")),
    *(("cuda:100", 64, name) for name in ("tokens", "rows")),
    *(("hip:gfx942", 128, name) for name in ("slashes_tiles", "rows_blocks", "labels")),
)
"""Of other targets, those that take most registers among them."""
GRADIENTS = (
    *(("cuda:90", 128, name) for name in ("slashes_tiles", "rows_blocks", "columns")),
    ("cuda:80", 64, "labels"),
    ("cuda:100", 64, "tree"),
    ("cuda:80", 128, "weights"),
)


def built(target: str, head_dim: int, name: str, part: str) -> dict[str, int]:
    """Of each kernel what it spills; every one of them is fit, with tensor-core instructions where it has products."""
    length = m.RunTimeLength(0)
    match KINDS[name].kind:
        case K.LENGTH:
            own: tuple[m.Term, ...] = (m.Sink(length, False), m.Window(length, 0, False))
        case K.WEIGHTS:
            own = ()
        case _:
            own = (m.Input(0),)
    score = m.Score(modifiers=(KeyBias(0),) if KINDS[name].kind is K.WEIGHTS else ())
    term = m.Intersection((m.Causal(), m.Union((m.Sink(5, False), m.Window(20, 0, False), *own))))
    pattern = m.ResolvedPattern(8, 2, (term,) * 8, 64, (KINDS[name],), m.Documents.NONE, score)
    compilation = Compilation(Lowered(pattern), head_dim, head_dim, "bfloat16", target)
    records = BACKEND.build(compilation, (part,), lambda said: None).kernels
    assert all(record.problems == () for record in records)
    return {record.name: max(record.spills or 0, record.stack_bytes or 0) for record in records}


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", KINDS)
def test_forward_of_every_kind(name: str, head_dim: int) -> None:
    found = built("cuda:90", head_dim, name, "forward")
    beside = "gather_forward_0" if name.startswith("rows") else "list_forward_0"
    assert found.keys() == ({"forward_0"} if name in ("columns", "weights") else {beside, "forward_0"})
    assert max(found.values()) <= NONE_OR_FEW


@pytest.mark.parametrize(("target", "head_dim", "name"), OTHERS)
def test_forward_on_other_targets(target: str, head_dim: int, name: str) -> None:
    assert max(built(target, head_dim, name, "forward").values()) <= NONE_OR_FEW


@pytest.mark.parametrize(("target", "head_dim", "name"), GRADIENTS)
def test_gradients(target: str, head_dim: int, name: str) -> None:
    found = built(target, head_dim, name, "backward")
    of_lists = {"gather_grad_keys_0_0", "gather_key_mass_0_0"} if name in ("columns", "rows_blocks") else set()
    assert {"row_sums", "grad_queries_0", "grad_keys_0", "key_mass_0", *of_lists} <= found.keys()
    assert max(found.values()) <= MOST
