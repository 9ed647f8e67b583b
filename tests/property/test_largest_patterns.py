"""The largest patterns that the limits allow are planned and printed, or refused, within a bounded number of steps.

A step is one call of a Python function: it is the same on every machine, and all of STEPS take about a second.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest
import torch
from hypothesis import event, given, note
from hypothesis import strategies as st
from vacuity import examples, wanted

from sparsec.backends.cpu.emit import emit_cpp, emit_cpp_backward
from sparsec.backends.cpu.emit_cached import emit_cpp_cached
from sparsec.backends.torch.kernel import TorchBackward, TorchKernel
from sparsec.backends.triton.emit import emit_triton, emit_triton_backward
from sparsec.backends.triton.emit_cached import emit_triton_cached
from sparsec.ir.bands.normalise import BAND_LIMIT, TooManyBands
from sparsec.pipeline import Lowered
from sparsec.plan.build import CLASS_LIMIT, TOGETHER_LIMIT
from sparsec.plan.kv.cached import NoCache
from sparsec.program import parse
from sparsec.reference.mask import mask
from sparsec.sema.model import ResolvedPattern
from sparsec.testing.tiles import check_tiles

STEPS = 6_000_000
"""What making one plan, or printing it, may take."""
LENGTH = 1_400_000
"""Characters, at most, of one kernel's source; of one for heads of many kinds MANY_KINDS."""
MANY_KINDS = 9_500_000
DRAWN = wanted(12, at_night=400)
PRIMES = [n for n in range(67, 1200) if all(n % d for d in range(2, n))]


class TooManySteps(AssertionError):
    pass


def within_limit(what: str, work: Callable[[], object]) -> None:
    """Runs `work`; raises TooManySteps as soon as it has called more than STEPS functions."""
    taken = 0

    def count(_frame: FrameType, kind: str, _argument: object) -> None:
        nonlocal taken
        taken += kind == "call"
        if taken > STEPS:
            raise TooManySteps(f"{what}: more than {STEPS:,} steps")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)


TERMS: dict[str, Callable[[int], str]] = {
    "columns": lambda n: f"columns({100 * n} .. {100 * n + 50})",
    "last columns": lambda n: f"columns(-{100 * n + 50} .. -{100 * n + 1})",
    "column blocks": lambda n: f"columns(-{3 * n + 2}b .. -{3 * n + 1}b)",
    "rows": lambda n: f"rows({100 * n} .. {100 * n + 50})",
    "last rows": lambda n: f"rows(-{100 * n + 50} .. -{100 * n + 1})",
    "rectangle": lambda n: f"rows({100 * n} .. {100 * n + 50}) & columns(-{90 * n + 70} .. -{90 * n + 1})",
    "rows of a window": lambda n: f"rows({100 * n} .. {100 * n + 50}) & window({10 * n + 7})",
    "distances": lambda n: f"window({10 * n + 8}) - window({10 * n + 3})",
    "chunk": lambda n: f"chunk({PRIMES[n]})",
    "near in grids": lambda n: f"near2d(width = {PRIMES[n]}, rows = 1, columns = 3)",
    "global": lambda n: f"global({10 * n + 8}) - global({10 * n + 4})",
    "stride": lambda n: f"stride({PRIMES[n]})",
    "block stride": lambda n: f"stride({PRIMES[n]}b)",
    "dilated": lambda n: f"dilated({PRIMES[n]})",
    "block dilated": lambda n: f"dilated({PRIMES[n]}b)",
    "dilated chunk": lambda n: f"dilated({PRIMES[n]}) & chunk({10 * PRIMES[n]})",
    "stride of columns": lambda n: f"stride({PRIMES[n]}) & columns({100 * n} .. {100 * n + 500})",
    "random": lambda n: f"random(3, seed = {n})",
    "random columns": lambda n: f"random(3, seed = {n}) & columns({100 * n} .. {200 * n + 50})",
}


def union(*terms: str) -> str:
    return " | ".join(f"({term})" for term in terms)


def pattern(body: str, heads: int = 2) -> ResolvedPattern:
    return parse(f"pattern largest {{ causal attend {body} }}").pattern().resolve(heads, 1 if heads == 2 else heads)


def check(heads: ResolvedPattern, length: int = LENGTH) -> int:
    """Plans and prints every path of the pattern within the limits; returns how many of them are refused."""
    tiles = {"head_dim": 64, "dtype": "float32", "query_tile": 64, "key_tile": 64}
    refused = 0
    for path, plan, prints in (
        ("forward", Lowered.plan_forward, (emit_cpp, emit_triton)),
        ("backward", Lowered.plan_backward, (emit_cpp_backward, emit_triton_backward)),
        ("cache", Lowered.plan_cached, (twice(emit_cpp_cached), twice(emit_triton_cached))),
    ):
        made: list[object] = []
        try:
            within_limit(path, lambda plan=plan, made=made: made.append(plan(Lowered(heads), **tiles)))
        except (TooManyBands, NoCache):
            refused += 1
            continue
        for emit in prints:
            texts: list[str] = []
            within_limit(f"{path}'s text", lambda emit=emit, made=made, texts=texts: texts.append(emit(made[0])))
            assert len(texts[0]) <= length, f"{path}: {len(texts[0]):,} characters"
    return refused


def twice(emit: Callable[[object, object], str]) -> Callable[[object], str]:
    return lambda plan: emit(plan, plan)


@pytest.mark.parametrize("name", TERMS)
def test_as_many_bands_of_one_kind_as_a_head_may_have(name: str) -> None:
    bands = {"global": 2, "near in grids": 3}.get(name, 1)
    refused = check(pattern(union(*map(TERMS[name], range(BAND_LIMIT // bands)))))
    # Each head has draws of its own, and the cache keeps a KV group's union.
    assert refused == ("random" in name)


def test_complements_and_products() -> None:
    columns = union(*map(TERMS["columns"], range(BAND_LIMIT - 1)))
    for body in (
        f"~({columns})",
        f"~~({columns})",
        f"~({union(*map(TERMS['stride'], range(BAND_LIMIT)))})",
        f"({columns}) & ({union(*(f'columns({100 * n + 20} .. {100 * n + 70})' for n in range(BAND_LIMIT)))})",
        f"({union(*map(TERMS['columns'], range(8)))}) & ({union(*map(TERMS['stride'], range(8)))})",
        f"({union(*map(TERMS['chunk'], range(8)))}) & ({union(*map(TERMS['dilated'], range(8)))})",
    ):
        assert check(pattern(body)) == 0, body
    # Refused: a product of unlike intervals, and what takes too many steps to simplify.
    for body in (
        f"({columns}) & ({union(*map(TERMS['chunk'], range(BAND_LIMIT)))})",
        f"~(~({columns}) & chunk(1009)) & ~(~({columns}) & chunk(1013))",
    ):
        assert check(pattern(body)) == 3, body


@pytest.mark.parametrize("name", ["chunk", "stride"])
def test_as_many_kinds_of_heads_as_a_plan_may_have(name: str) -> None:
    each = TOGETHER_LIMIT // CLASS_LIMIT
    terms = [TERMS[name](3 * n).replace(")", " + h)", 1) for n in range(each)]
    assert check(pattern(union(*terms), CLASS_LIMIT), MANY_KINDS) == 0
    assert check(pattern(union(*terms, "columns(9000 .. 9001)"), CLASS_LIMIT)) == 3


@pytest.mark.parametrize(
    "names", [("stride", "dilated"), ("random", "chunk"), ("block stride", "last columns")], ids=str
)
def test_tiles_of_many_bands_are_those_of_the_mask(names: tuple[str, ...]) -> None:
    heads = pattern(union(*(TERMS[name](n + 1) for n in range(10) for name in names)))
    plan = Lowered(heads).plan_forward(head_dim=64, dtype="float32", query_tile=16, key_tile=16)
    check_tiles(plan, mask(heads, 90, 700, 610), 610)
    backward = Lowered(heads).plan_backward(head_dim=64, dtype="float32", query_tile=16, key_tile=16)
    generator = torch.Generator().manual_seed(1)
    q, k, v, grad = (torch.randn(1, n, 300, 8, generator=generator, dtype=torch.float64) for n in (2, 1, 1, 2))
    call = {"q_offset": 0, "scale": None}
    out, lse = TorchKernel(plan).forward(q, k, v, **call)
    found = TorchBackward(backward).backward(grad, None, q, k, v, out, lse, **call)
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    scores = (leaves[0] @ leaves[1].mT * 8**-0.5).masked_fill(~mask(heads, 300, 300, 0), -torch.inf)
    expected = torch.autograd.grad(torch.softmax(scores, dim=-1).nan_to_num() @ leaves[2], leaves, grad)
    for got, want in zip(found, expected, strict=False):
        torch.testing.assert_close(got, want.nan_to_num(), rtol=1e-9, atol=1e-9)


def test_mixtures() -> None:
    @examples(DRAWN)
    @given(st.lists(st.sampled_from(sorted(TERMS)), min_size=BAND_LIMIT, max_size=BAND_LIMIT), st.booleans())
    def run(names: list[str], negated: bool) -> None:
        terms = [TERMS[name](n) for n, name in enumerate(names) if not negated or n < 5]
        body = f"full - ({union(*terms)})" if negated else union(*terms)
        note(body)
        event(f"{check(pattern(body))} paths refused")

    run()
