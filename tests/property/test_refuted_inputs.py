"""Errors planted in plans of patterns with inputs: what the inputs are where a claim fails is told with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from proof_patterns import compilation, heads_of

from sparsec.ir.expr import nodes as x
from sparsec.ir.expr import simplify
from sparsec.ir.tiles.program import TileProgram

z3 = pytest.importorskip("z3")

from test_refutation import (  # noqa: E402  # z3 comes first
    claim_about,
    classes_of,
    one_tile_short,
    rewritten,
    short_ring,
    with_segments,
)

from sparsec.prove import Claim  # noqa: E402
from sparsec.prove.cache_obligations import prove_cache  # noqa: E402
from sparsec.prove.launches import cached  # noqa: E402
from sparsec.prove.proving import bound_program, prove_tiles  # noqa: E402

KINDS = {
    "tokens": "key ",
    "columns(blocks)": "key block ",
    "slashes": "distance ",
    "slashes(blocks)": "block distance ",
    "slashes(tiles)": "tile distance ",
    "blocks(64, 32)": "row ",
    "labels": "query ",
    "tree": ("no token", "the last "),
}
"""What tells of some pair."""


def text_of(kind: str, term: str = "picks | window(40)") -> str:
    return f"pattern p {{ heads 2  input picks : {kind}  causal  attend {term} }}"


def listed(claim: Claim) -> str:
    """What is told of the input of a claim that is refuted."""
    assert claim.status == "refuted" and claim.counterexample is not None
    (line,) = claim.inputs
    assert "X" in claim.picture or "x" in claim.picture
    return line.partition("): ")[2]


def of_changed(text: str, launch: str, name: str, change: Callable[[TileProgram], TileProgram]) -> Claim:
    of_launch, (head_class,) = classes_of(launch, text)
    changed = change(head_class.program)
    assert changed != head_class.program
    return claim_about(of_launch, head_class, changed, name, text)


@pytest.mark.parametrize("launch", ["forward", "gradients of keys"])
@pytest.mark.parametrize(("kind", "told"), KINDS.items())
def test_a_tile_that_only_an_input_asks_for_is_not_visited(kind: str, told: str | tuple[str, ...], launch: str) -> None:
    """The loop that asks the input, one tile short."""

    def short(program: TileProgram) -> TileProgram:
        return list(with_segments(program, one_tile_short, full=False))[-1]

    found = of_changed(text_of(kind), launch, "coverage", short)
    assert listed(found).startswith(told), found.inputs
    assert "X" in found.picture and found.picture.endswith("never")


@pytest.mark.parametrize("kind", ["tokens", "slashes", "labels"])
def test_a_tile_of_some_pairs_is_not_full(kind: str) -> None:
    def some(part: Any) -> Any:
        return replace(part, scope=x.Extent.SOME) if isinstance(part, x.Picked) else None

    def lax(program: TileProgram) -> TileProgram:
        return replace(program, full=tuple(replace(each, when=rewritten(each.when, some)) for each in program.full))

    found = of_changed(text_of(kind), "forward", "fullness", lax)
    assert listed(found) != "nothing" and "x" in found.picture and "is visited: full" in found.picture


def test_a_list_holds_a_pair_of_a_tile() -> None:
    def again(program: TileProgram) -> TileProgram:
        return replace(program, gathers=tuple(replace(each, live=x.TRUE) for each in program.gathers))

    found = of_changed(text_of("rows"), "forward", "gathers", again)
    at = found.counterexample
    assert at is not None and listed(found) == f"query {at['i']}: key {at['j']}"


def test_a_test_of_an_input_is_turned_round() -> None:
    def turned(program: TileProgram) -> TileProgram:
        return replace(program, live=rewritten(program.live, lambda p: x.Not(p) if isinstance(p, x.Picked) else None))

    found = of_changed(text_of("tokens"), "forward", "meaning", turned)
    at = found.counterexample
    assert at is not None and listed(found) in ("nothing", f"key {at['j']}")


@pytest.mark.parametrize("launch", ["forward", "gradients of keys"])
def test_listed_columns_lie_further_than_they_are_looked_for(launch: str) -> None:
    text = text_of("columns")
    of_launch, (head_class,) = classes_of(launch, text)
    program = head_class.program
    (gather,) = program.gathers
    assert gather.reach is not None
    late = replace(gather.reach, start=simplify.add(gather.reach.start, x.ONE))
    bound = bound_program(
        of_launch, replace(head_class, program=replace(program, gathers=(replace(gather, reach=late),)))
    )
    found = {claim.name: claim for claim in prove_tiles(bound, "planted", heads_of(text))}["reach"]
    at = found.counterexample
    assert at is not None and listed(found) == f"key {at['j']}"


@pytest.mark.parametrize("told", ["the least", "none that says nothing"])
def test_inputs_are_told_as_far_as_they_matter(told: str) -> None:
    """Of two inputs one alone; and of claims about numbers none."""
    text = (
        "pattern p { heads 2  input picks : tokens  input marks : labels  causal  attend picks | marks | window(40) }"
    )
    of_launch, (head_class,) = classes_of("forward", text)
    if told == "the least":
        program = list(with_segments(head_class.program, one_tile_short, full=False))[-1]
        lines = claim_about(of_launch, head_class, program, "coverage", text).inputs
        assert len(lines) == 2 and sum(line.endswith("): nothing") for line in lines) == 1
    else:
        wide = replace(
            head_class.program, lets=(*head_class.program.lets, x.Let("more", x.Mul(x.Var("nk"), x.Int(99))))
        )
        found = claim_about(of_launch, head_class, wide, "int32", text)
        assert found.status == "refuted" and found.inputs == ()


def test_a_cache_loses_a_key_that_an_input_asks_for() -> None:
    text = "pattern p { heads 2  input picks : rows  causal  attend picks & window(100) }"
    plans = tuple(map(short_ring, cached(compilation(heads_of(text)))))
    found = {claim.name: claim for claim in prove_cache(heads_of(text), plans)}["storage"]
    at = found.counterexample
    assert at is not None and listed(found) == f"query {at['i']}: key {at['j']}"
