"""Kernels of patterns with inputs, compiled ahead of time: they find room, and take their products by tensor cores.

Every kind of input for one target, and for the others those whose pairs are looked up each in another way.
"""

from __future__ import annotations

import os

import pytest
from spilling import MOST, NONE_OR_FEW

from sparsec.backends.triton.backend import BACKEND
from sparsec.pipeline import Compilation, Lowered
from sparsec.sema import model as m

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
    )
}
OTHERS = {
    "cuda:80": ("tree", "rows"),
    "cuda:100": ("slashes", "labels"),
    "hip:gfx942": ("slashes_tiles", "rows_blocks"),
}
"""Of other targets, at the head dimension that takes more registers."""
GRADIENTS = (
    *(("cuda:90", 128, name) for name in ("slashes_tiles", "rows_blocks", "columns")),
    ("cuda:80", 64, "labels"),
    ("cuda:100", 64, "tree"),
)


def built(target: str, head_dim: int, name: str, part: str) -> dict[str, int]:
    """Of each kernel what it spills; every one of them is fit, with tensor-core instructions where it has products."""
    length = m.RunTimeLength(0)
    own = (m.Sink(length, False), m.Window(length, 0, False)) if name == "length" else (m.Input(0),)
    term = m.Intersection((m.Causal(), m.Union((m.Sink(5, False), m.Window(20, 0, False), *own))))
    pattern = m.ResolvedPattern(8, 2, (term,) * 8, 64, (KINDS[name],), m.Documents.NONE, m.Score())
    compilation = Compilation(Lowered(pattern), head_dim, head_dim, "bfloat16", target)
    records = BACKEND.build(compilation, (part,), lambda said: None).kernels
    assert all(record.problems == () for record in records)
    return {record.name: max(record.spills or 0, record.stack_bytes or 0) for record in records}


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", KINDS)
def test_forward_of_every_kind(name: str, head_dim: int) -> None:
    found = built("cuda:90", head_dim, name, "forward")
    beside = "gather_forward_0" if name.startswith("rows") else "list_forward_0"
    assert found.keys() == ({"forward_0"} if name == "columns" else {beside, "forward_0"})
    assert max(found.values()) <= NONE_OR_FEW


@pytest.mark.parametrize(("target", "name"), [(target, name) for target, names in OTHERS.items() for name in names])
def test_forward_on_other_targets(target: str, name: str) -> None:
    assert max(built(target, 128, name, "forward").values()) <= NONE_OR_FEW


@pytest.mark.parametrize(("target", "head_dim", "name"), GRADIENTS)
def test_gradients(target: str, head_dim: int, name: str) -> None:
    found = built(target, head_dim, name, "backward")
    of_lists = {"gather_grad_keys_0_0", "gather_key_mass_0_0"} if name in ("columns", "rows_blocks") else set()
    assert {"row_sums", "grad_queries_0", "grad_keys_0", "key_mass_0", *of_lists} <= found.keys()
    assert max(found.values()) <= MOST
