"""What rows of few queries multiply over a cache of bfloat16: pairs of elements, by a model of the processor's
instructions, and as this machine has them."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from functools import cache

import pytest
import torch
from cached_walk import PATTERNS, Walk
from test_cpu_cached import plans_of
from test_micro_kernels import CHOSEN, INSTRUCTIONS, MODEL

from sparsec.backends.cpu.cached import NAMES, CpuCached, Entries
from sparsec.backends.cpu.kernel import compile_shared, has_compiler, micro_kernels_of, open_library

pytestmark = pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")

NAME, HEAD_DIM = "unlike_heads", 72
"""Packs of one, two and three heads; a row that is no whole number of vectors."""


@cache
def kernel(*, model: bool) -> CpuCached:
    of = CpuCached.of(*plans_of(PATTERNS[NAME], HEAD_DIM, "bfloat16"))
    source = of.source.replace(*INSTRUCTIONS).replace(CHOSEN, MODEL) if model else of.source
    assert of.source.count(CHOSEN) == 2, "of chunks and of rows"
    library = open_library(compile_shared(source, optimise=1))
    entries = Entries(**{name: library[f"sparsec_{name}"] for name in NAMES})
    return replace(of, entries=lambda: entries)


def walk(*, model: bool) -> Walk:
    return Walk(PATTERNS[NAME], kernel(model=model), 1, 700, HEAD_DIM, torch.bfloat16)


@pytest.mark.parametrize("model", [True, False])
def test_rows_of_pairs_are_one_dense_pass(model: bool) -> None:
    """Of lengths even and odd, and of more keys than wait at a time."""
    of = walk(model=model)
    of.step(40)
    for _ in range(9):
        of.step(1)
    of.step(600)
    for _ in range(4):
        of.step(1)
    of.step(2)
    of.check()


@pytest.mark.parametrize("model", [True, False])
def test_what_is_beside_an_odd_key_has_no_part(model: bool) -> None:
    """The value of the last key, of an odd number or an even one, is infinite and so are the outputs: never NaN."""
    for length in (50, 51):
        of = walk(model=model)
        of.tensors[2][:, :, length] = math.inf
        of.step(length)
        out, _ = of.attend(of.call(1, [1]), [1])
        assert out.isinf().all()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64")
def test_rows_beside_a_matrix_unit_are_of_floats() -> None:
    """Ahead of time: where pairs are the matrix unit's, the instruction for vectors of them takes longer."""
    source = CpuCached.of(*plans_of(PATTERNS[NAME], HEAD_DIM, "bfloat16")).source
    library = compile_shared(source, optimise=1, processor="sapphirerapids")
    names = micro_kernels_of(library.read_bytes())
    assert names["attend_rows"] == "float32, 16 lanes"
    assert names["attend_chunk"].startswith("pairs of bfloat16")
