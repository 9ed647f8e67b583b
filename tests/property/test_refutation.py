"""Errors planted in plans: the claims that they break are refuted, each with a counterexample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from proof_patterns import MODEST, PLAIN, STRIDED, compilation, heads_of, statuses

from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.liveness import Region
from sparsec.ir.expr import nodes as x
from sparsec.ir.expr import simplify
from sparsec.ir.tiles.program import Segment, TileProgram
from sparsec.pipeline import Compilation
from sparsec.plan.kernel import HeadClass
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.kv.layout import CacheLayout, OldestNeeded, oldest_needed

z3 = pytest.importorskip("z3")

from sparsec.prove import Claim, cache_obligations, prove, solve  # noqa: E402  # they import z3
from sparsec.prove.cache_obligations import prove_cache  # noqa: E402
from sparsec.prove.decide import decide  # noqa: E402
from sparsec.prove.launches import Launch, cached, launches  # noqa: E402
from sparsec.prove.proving import bound_program, obligations_of  # noqa: E402
from sparsec.prove.strided_lemmas import with_spans  # noqa: E402
from sparsec.prove.tile_setting import tile_setting  # noqa: E402


def with_segments(program: TileProgram, change: Callable[[Segment], Segment], *, full: bool) -> Iterator[TileProgram]:
    """The program with one segment changed, for each of its full or masked ones."""
    segments = program.full if full else program.masked
    for n, segment in enumerate(segments):
        changed = (*segments[:n], change(segment), *segments[n + 1 :])
        yield replace(program, full=changed) if full else replace(program, masked=changed)


def one_tile_short(segment: Segment) -> Segment:
    return replace(segment, count=simplify.maximum(simplify.sub(segment.count, x.ONE), x.ZERO))


def one_tile_more(segment: Segment) -> Segment:
    return replace(segment, count=simplify.add(segment.count, x.ONE))


def one_tile_late(segment: Segment) -> Segment:
    return replace(segment, tile=simplify.add(segment.tile, x.ONE))


def rewritten(tree: Any, change: Callable[[Any], Any]) -> Any:
    """The expression with every part replaced for which `change` has something else."""
    found = change(tree)
    if found is not None:
        return found
    parts = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
    return replace(tree, **{k: rewritten(part, change) for k, part in parts.items() if dataclasses.is_dataclass(part)})


def classes_of(name: str, text: str = PLAIN) -> tuple[Launch, tuple[HeadClass, ...]]:
    launch = next(each for each in launches(compilation(heads_of(text)), ()) if each.name == name)
    return launch, launch.classes


def claim_about(launch: Launch, head_class: HeadClass, program: TileProgram, name: str, text: str = PLAIN) -> Claim:
    case = bound_program(launch, replace(head_class, program=program))
    subject, obligations = obligations_of(case, "planted", heads_of(text))
    return decide(subject, next(each for each in obligations if each.name == name), 60)


@pytest.mark.parametrize("launch", ["forward", "gradients of keys"])
@pytest.mark.parametrize(
    ("change", "claim", "full"),
    [
        (one_tile_short, "coverage", False),
        (one_tile_short, "coverage", True),
        (one_tile_late, "coverage", False),
        (one_tile_more, "fullness", True),
        (one_tile_more, "disjointness", True),
    ],
)
def test_wrong_bounds_are_refuted(launch: str, change: Callable[[Segment], Segment], claim: str, full: bool) -> None:
    of_launch, (head_class,) = classes_of(launch)
    programs = with_segments(head_class.program, change, full=full)
    claims = (claim_about(of_launch, head_class, program, claim) for program in programs)
    found = next(each for each in claims if each.status == "refuted")
    assert found.counterexample is not None
    assert {"h", "i", "j", "nk", "tile"} <= found.counterexample.keys()
    marks = "".join(line.split("  ")[-1] for line in found.picture.splitlines()[:-1])
    assert marks.count("X") + marks.count("x") == 1 and set(marks) <= set("#.Xx"), found.picture
    assert "is visited: " in found.picture
    if claim == "coverage":
        assert "X" in marks and found.picture.endswith("never")
    if claim == "disjointness":
        assert "full" in found.picture.splitlines()[-1] and "," in found.picture.split("is visited: ")[1]


@pytest.mark.parametrize("launch", ["forward", "gradients of keys"])
@pytest.mark.parametrize(
    ("change", "claim"), [(one_tile_short, "coverage"), (one_tile_more, "disjointness"), (one_tile_late, "coverage")]
)
def test_wrong_bounds_of_strided_tiles_are_refuted(
    launch: str, change: Callable[[Segment], Segment], claim: str
) -> None:
    """Where a span is shown of a loop, claims read the span in place of the loop's count."""
    of_launch, (head_class,) = classes_of(launch, STRIDED)
    found = []
    for full in (False, True):
        own = head_class.program.full if full else head_class.program.masked
        for n, program in enumerate(with_segments(head_class.program, change, full=full)):
            if not own[n].contiguous:
                found.append(claim_about(of_launch, head_class, program, claim, STRIDED).status)
    assert found and "refuted" in found, found


def test_spans_are_shown_of_right_counts_alone() -> None:
    launch, (head_class,) = classes_of("gradients of keys", STRIDED)

    def shown(program: TileProgram) -> int:
        at = tile_setting(bound_program(launch, replace(head_class, program=program)))
        return len(with_spans(at, solve.Solver(at.space)).spans)

    strided = [segment for segment in head_class.program.masked if not segment.contiguous]
    whole = shown(head_class.program)
    assert whole >= len(strided) > 0
    for change in (one_tile_short, one_tile_more, one_tile_late):
        for n, program in enumerate(with_segments(head_class.program, change, full=False)):
            assert shown(program) == whole - (head_class.program.masked[n] in strided)


def test_the_shorter_way_proves_what_is_right_and_nothing_else() -> None:
    launch, (head_class,) = classes_of("gradients of keys")

    def shown(program: TileProgram) -> set[str]:
        case = bound_program(launch, replace(head_class, program=program))
        subject, obligations = obligations_of(case, "cut", heads_of(PLAIN))
        return {each.name for each in obligations if each.by_lemmas(lambda f: subject.solver.ask(f.whole, 60) is False)}

    assert shown(head_class.program) == {"coverage", "disjointness", "bounds"}
    (late, *_) = with_segments(head_class.program, one_tile_late, full=False)
    assert "coverage" not in shown(late)
    (twice, *_) = with_segments(head_class.program, one_tile_more, full=True)
    assert "disjointness" not in shown(twice)


def test_a_wrong_predicate_is_refuted() -> None:
    launch, (head_class,) = classes_of("forward")

    def longer(part: Any) -> Any:
        """The window of 200 keys, 201 long."""
        return replace(part, value=part.value + 1) if part in (x.Int(199), x.Int(200)) else None

    live = rewritten(head_class.program.live, longer)
    assert live != head_class.program.live
    found = claim_about(launch, head_class, replace(head_class.program, live=live), "meaning")
    at = found.counterexample
    assert found.status == "refuted" and at is not None
    assert at["i"] - at["j"] == 200


def cache_claims(change: Callable[[CachedPlan], CachedPlan]) -> dict[str, Claim]:
    heads = heads_of(MODEST)
    plans = tuple(change(plan) for plan in cached(compilation(heads)))
    return {claim.name: claim for claim in prove_cache(heads, plans)}


def short_ring(plan: CachedPlan) -> CachedPlan:
    """With one slot less than the window's ring needs."""
    groups = tuple(
        tuple(replace(region, reach=region.reach - 1) if region.reach else region for region in group)
        for group in plan.layout.groups
    )
    return replace(plan, layout=CacheLayout(groups, plan.layout.growth))


def other_period(part: Any) -> Any:
    """A stride's keys numbered as if every fourth block were one of them, not every third."""
    return replace(part, right=x.Int(4)) if isinstance(part, x.FloorDiv) and part.right == x.Int(3) else None


def unbounded(part: Any) -> Any:
    """Keys of a growing region stored however large their number is."""
    right = part.right if isinstance(part, x.Less) else None
    return x.TRUE if isinstance(right, x.Var) and right.name.startswith("capacity") else None


def mapped(change: Callable[[Any], Any], *, stored: bool) -> Callable[[CachedPlan], CachedPlan]:
    """With other slots where keys are looked up and, if `stored`, the same ones where they are stored."""

    def of(plan: CachedPlan) -> CachedPlan:
        slots = tuple(replace(each, slot=rewritten(each.slot, change)) for each in plan.slots)
        store = tuple(
            replace(each, slots=replace(each.slots, kept=rewritten(each.slots.kept, change))) for each in plan.store
        )
        return replace(plan, slots=slots, store=store if stored else plan.store)

    return of


def test_the_cache_of_the_modest_pattern_is_proved() -> None:
    assert set(statuses(tuple(cache_claims(lambda plan: plan).values()))) == {"proved"}


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        (short_ring, "storage"),
        (short_ring, "injectivity"),
        (mapped(other_period, stored=True), "injectivity"),
        (mapped(other_period, stored=False), "storage"),
        (mapped(unbounded, stored=True), "slots"),
    ],
)
def test_wrong_slots_are_refuted(change: Callable[[CachedPlan], CachedPlan], claim: str) -> None:
    found = cache_claims(change)[claim]
    assert found.status == "refuted"
    at = found.counterexample
    assert at is not None and {"group", "j", "max_len", "rollback"} <= at.keys()
    assert "X" in found.picture and f"key {at['j']} goes to slot" in found.picture
    if claim == "injectivity":
        assert at["j"] < at["other"] < at["max_len"]
        slots = [each.split("key ")[1] for each in found.picture.splitlines()[-1].split("; ")[1].split(", ")[1:]]
        assert slots[1].startswith(f"{at['other']} to slot")


@pytest.mark.parametrize(("more", "cut"), [(-1, "too much"), (1, "too little")])
def test_a_wrong_truncation_is_refuted(more: int, cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of rings asked for one step less, or one more, than queries do."""

    def misjudged(region: Region, right: Callable[[Region], OldestNeeded] = oldest_needed) -> OldestNeeded:
        assert region.reach is not None
        return right(replace(region, reach=region.reach + more))

    for module in ("sparsec.plan.kv.layout", "sparsec.prove.cache_obligations"):
        monkeypatch.setattr(f"{module}.oldest_needed", misjudged)
    found = cache_claims(lambda plan: plan)["truncation"]
    at = found.counterexample
    assert found.status == "refuted" and at is not None
    gone = at["newest"] - at["length"]
    assert gone > at["rollback"] + 1 if cut == "too much" else gone <= at["rollback"] + 1
    assert {name for name, claim in cache_claims(lambda plan: plan).items() if claim.status != "proved"} == {
        "truncation"
    }


def test_a_wrong_rule_of_pages_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of the window needed one step less."""
    right = cache_obligations.dead

    def misjudged(region: Region) -> x.Bool:
        return right(region if region.reach is None else replace(region, reach=region.reach - 1))

    for module in ("cache_obligations", "cache_counterexample"):
        monkeypatch.setattr(f"sparsec.prove.{module}.dead", misjudged)
    at = cache_claims(lambda plan: plan)["pages"].counterexample
    assert at is not None and at["first"] <= at["j"] < at["end"]


def test_a_query_that_looks_ahead_is_no_cache_s() -> None:
    """The layout of the causal pattern, asked by heads that see one key more."""
    plans = cached(compilation(heads_of("pattern p { heads 1  causal  attend window(9) }")))
    ahead = heads_of("pattern p { heads 1  attend window(9, ahead = 1) }")
    found = {claim.name: claim for claim in prove_cache(ahead, plans)}
    at = found["causality"].counterexample
    assert at is not None and at["j"] == at["i"] + 1


# ---- What claims read off a plan, or ask of iterations that come to no tile

FAR = x.Int(2**30 // 64 + 1)
"""A tile past all positions, of 64 columns."""
DRAWN_ONES = "pattern p { heads 1  block 64  causal  attend random(2, seed = 1) | window(32) }"
CHUNKS = "pattern p { heads 1  attend chunk(100) }"


def planted(tile: x.Expr, *, when: x.Bool = x.TRUE, contiguous: bool = False) -> Segment:
    """A loop of five iterations."""
    return Segment(x.Int(5), tile, when, contiguous, None, "planted")


@pytest.mark.parametrize(
    ("segment", "claim"),
    [
        (planted(simplify.add(x.Var("n"), FAR), contiguous=True), "bounds"),
        (planted(simplify.sub(x.Var("n"), FAR), contiguous=True), "bounds"),
        (planted(simplify.add(x.Var("n"), simplify.mul(FAR, x.Int(8))), contiguous=True), "int32"),
        (planted(x.Var("n"), when=x.Less(x.Mul(simplify.add(x.Var("n"), x.Int(2**28)), x.Int(8)), x.ZERO)), "int32"),
    ],
    ids=["a far tile", "a far tile before all", "columns past int32", "a test of tiles left out"],
)
@pytest.mark.parametrize("full", [False, True])
def test_loops_that_come_to_no_tile_are_asked_too(segment: Segment, claim: str, full: bool) -> None:
    """What a kernel computes at every iteration, tests that are false in exact arithmetic among them."""
    launch, (head_class,) = classes_of("forward", DRAWN_ONES)
    own = head_class.program
    more = replace(own, full=(*own.full, segment)) if full else replace(own, masked=(*own.masked, segment))
    assert claim_about(launch, head_class, more, claim, DRAWN_ONES).status == "refuted"


def test_tests_of_any_entry_are_asked() -> None:
    """Of a table, of which the solver knows the range alone: what it finds need not be drawn anywhere."""
    launch, (head_class,) = classes_of("forward", DRAWN_ONES)
    large = x.Less(x.Mul(x.Var("entry"), x.Int(2**24)), x.ZERO)
    changed = [
        replace(segment, when=x.And(segment.when, large))
        for segment in head_class.program.masked
        if segment.listed is not None
    ]
    program = replace(head_class.program, masked=tuple(changed))
    assert changed and claim_about(launch, head_class, program, "int32", DRAWN_ONES).status != "proved"


def rounded_up(part: Any) -> Any:
    """Every division printed as C's, for whatever numbers."""
    if isinstance(part, x.FloorDiv | x.Mod) and not part.nonneg:
        return replace(part, left=rewritten(part.left, rounded_up), nonneg=True)
    return None


def test_divisions_of_negative_numbers_are_refuted() -> None:
    launch, (head_class,) = classes_of("forward", CHUNKS)
    program = head_class.program
    for changed in (
        replace(program, live=rewritten(program.live, rounded_up)),
        replace(program, lets=tuple(replace(let, value=rewritten(let.value, rounded_up)) for let in program.lets)),
    ):
        assert changed != program
        found = claim_about(launch, head_class, changed, "signs", CHUNKS)
        assert found.status == "refuted" and found.counterexample is not None
        assert found.counterexample["i0"] < 0
    assert cache_claims(mapped(rounded_down_past_zero, stored=True))["signs"].status == "refuted"


def rounded_down_past_zero(part: Any) -> Any:
    """A stride's keys numbered from the next one on."""
    if isinstance(part, x.FloorDiv) and part.right == x.Int(3):
        return replace(part, left=simplify.sub(part.left, x.Int(1000)), nonneg=True)
    return None


def test_a_iteration_past_its_table_is_refuted() -> None:
    launch, (head_class,) = classes_of("forward", DRAWN_ONES)
    listed = [segment for segment in head_class.program.masked if segment.listed is not None]
    changed = replace(head_class.program, masked=tuple(map(one_tile_more, listed)))
    assert listed and claim_about(launch, head_class, changed, "counts", DRAWN_ONES).status == "refuted"


def test_programs_of_another_form_are_refused() -> None:
    launch, (head_class,) = classes_of("forward", DRAWN_ONES)
    program = head_class.program
    twice = Segment(x.Int(4), simplify.floor_div(x.Var("n"), x.Int(2)), x.TRUE, True, None, "planted")
    wrong = {
        "come one after another": replace(program, masked=(*program.masked, twice)),
        "blocks of 64": replace(program, lists=tuple(replace(spec, block=128) for spec in program.lists)),
        "which tiles divide": replace(program, query_tile=128),
    }
    for said, changed in wrong.items():
        with pytest.raises(InternalError, match=said):
            claim_about(launch, head_class, changed, "coverage", DRAWN_ONES)


def test_every_head_is_launched_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "pattern p { heads 2  causal  where h < 1 attend window(9)  otherwise attend sink(64) | stride(30) }"
    of = compilation(heads_of(text))
    monkeypatch.setattr(Compilation, "forward", replace(of.forward, classes=of.forward.classes[:1]))
    with pytest.raises(InternalError, match="forward: a head"):
        prove(heads_of(text), gradients=False)
    monkeypatch.undo()
    monkeypatch.setattr(Compilation, "backward", replace(of.backward, transposed=of.backward.transposed * 2))
    with pytest.raises(InternalError, match="gradients of keys: a head"):
        prove(heads_of(text))


def test_a_key_that_a_longer_cut_needs_is_stored() -> None:
    """A call that keeps no key further before its end than queries see and rollback reaches, though a cut by more
    tokens is allowed where it loses nothing."""
    heads = heads_of("pattern p { heads 1  block 16  causal  attend window(50) & stride(4b) }")
    capacity, sixteen = x.Var("capacity0"), x.Int(16)
    rest, whole = simplify.mod(capacity, sixteen), simplify.mul(simplify.floor_div(capacity, sixteen), x.Int(64))
    reach = x.Select(x.Less(rest, x.ONE), whole, simplify.add(whole, rest))
    old = x.Less(reach, simplify.sub(x.Var("stop"), x.Var("j")))

    def forgetful(plan: CachedPlan) -> CachedPlan:
        kept = (replace(s, slots=replace(s.slots, kept=x.Select(old, x.Int(-1), s.slots.kept))) for s in plan.store)
        return replace(plan, store=tuple(kept))

    plans = tuple(map(forgetful, cached(compilation(heads))))
    found = {claim.name: claim.status for claim in prove_cache(heads, plans)}
    assert found["truncation"] != "proved"


def test_a_ring_without_slots_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsec.prove.cache_obligations.capacity_expr", lambda region: x.Var("rollback"))
    with pytest.raises(InternalError, match="divisor is positive"):
        prove_cache(heads_of(MODEST), cached(compilation(heads_of(MODEST))))
