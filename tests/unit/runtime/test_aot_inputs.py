"""Kernels of patterns with inputs, compiled ahead of time: they find room, and take their products by tensor cores."""

from __future__ import annotations

import os

import pytest

from sparsec.backends.triton.backend import BACKEND
from sparsec.pipeline import Compilation, Lowered
from sparsec.sema import model as m

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [pytest.mark.kernels, pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")]
LISTS = m.InputDecl("lists", m.InputKind.ROWS, 1, 1, m.InputUnit.BLOCKS)
LABELS = m.InputDecl("labels", m.InputKind.LABELS, 1, 1)
TARGETS = ("cuda:80", "cuda:90")


def built(target: str, declared: m.InputDecl, head_dim: int, part: str) -> dict[str, tuple[int, int]]:
    """Of each kernel what it spills, and its tensor-core instructions."""
    term = m.Intersection((m.Causal(), m.Input(0)))
    pattern = m.ResolvedPattern(8, 2, (term,) * 8, 64, (declared,), m.Documents.NONE, m.Score())
    compilation = Compilation(Lowered(pattern), head_dim, head_dim, "bfloat16", target)
    records = BACKEND.build(compilation, (part,), lambda said: None).kernels
    assert all(record.problems == () for record in records)
    return {
        record.name: (max(record.spills or 0, record.stack_bytes or 0), record.tensor_core_instructions or 0)
        for record in records
    }


@pytest.mark.parametrize("declared", [LISTS, LABELS], ids=lambda each: each.name)
@pytest.mark.parametrize("target", TARGETS)
def test_forward(target: str, declared: m.InputDecl) -> None:
    found = built(target, declared, 128, "forward")
    of_tiles = ["gather_forward_0"] if declared is LISTS else ["list_forward_0", "forward_0"]
    assert list(found) == of_tiles
    assert all(spilt == 0 for spilt, _ in found.values())
    assert all(products > 0 for name, (_, products) in found.items() if not name.startswith("list_"))
