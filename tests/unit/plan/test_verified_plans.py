"""`SPARSEC_VERIFY=1`: plans are checked where they are made, those of every example pass, and a broken one does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import sparsec
from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.classes import BlockMask
from sparsec.pipeline import Compilation, Lowered
from sparsec.plan.kernel import HeadClass
from sparsec.plan.kv.cached import NoCache
from sparsec.plan.verify import verified

EXAMPLES = Path(__file__).parents[3] / "examples"
PATTERNS = [(path.name, name) for path in sorted(EXAMPLES.glob("*.sparse")) for name in sparsec.load(path).patterns]
WITHOUT_CACHE = ("bigbird", "longformer", "packed_window", "packed_s2", "sasa")
LOCAL = "pattern local { heads 2  block 16  causal  attend window(3b) | stride(4b, phase = h) }"


@pytest.fixture(autouse=True)
def verifying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEC_VERIFY", "1")


@pytest.mark.parametrize(("file", "name"), PATTERNS, ids=[name for _, name in PATTERNS])
def test_the_plans_of_an_example(file: str, name: str) -> None:
    made(file, name, "cpu", "float32")


@pytest.mark.parametrize("name", ["s2", "s2_dense_groups"])
def test_tiles_of_other_sizes(name: str) -> None:
    made("s2.sparse", name, "cuda:90", "bfloat16")


def made(file: str, name: str, target: str, dtype: str) -> None:
    pattern = sparsec.load(EXAMPLES / file).pattern(name)
    lowered = pattern.lowered(pattern.heads or 4, pattern.kv_heads or 2)
    compilation = Compilation(lowered, 128, 128, dtype, target)
    assert compilation.forward.heads == compilation.backward.forward.heads == lowered.pattern.heads
    if name in WITHOUT_CACHE:
        with pytest.raises(NoCache):
            compilation.cached  # noqa: B018  # a property that raises
    else:
        assert len(compilation.cached) == 2


def without_segments(of: tuple[HeadClass, ...]) -> tuple[HeadClass, ...]:
    def emptied(c: HeadClass) -> HeadClass:
        return replace(c, program=replace(c.program, full=(), masked=(), ranges=type(c.program.ranges)()))

    return tuple(map(emptied, of))


def broken(mask: BlockMask) -> BlockMask:
    """Without its first band's lower bounds: that band then holds the other one."""
    (of,) = mask.classes
    first, *others = of.bands
    return replace(mask, classes=(replace(of, bands=(replace(first, lower=()), *others)),))


def lowered() -> Lowered:
    return sparsec.parse(LOCAL).pattern().lowered()


def compilation() -> Compilation:
    return Compilation(lowered(), 64, 64, "float32", "cpu")


MISSED = "every live pair lies in a visited tile"


def test_a_broken_plan_of_each_kind_is_told() -> None:
    found = compilation()
    mask, transposed = found.lowered.mask, found.lowered.transposed
    forward, backward, chunks = found.forward, found.backward, found.chunks
    with pytest.raises(InternalError, match=MISSED):
        verified(replace(forward, classes=without_segments(forward.classes)), mask)
    with pytest.raises(InternalError, match=f"{MISSED}; got, for rows j from"):
        verified(replace(backward, transposed=without_segments(backward.transposed)), mask, transposed)
    with pytest.raises(InternalError, match=f"{MISSED}; got, for rows i from"):
        verified(
            replace(backward, forward=replace(forward, classes=without_segments(forward.classes))), mask, transposed
        )
    with pytest.raises(InternalError, match=MISSED):
        verified(replace(chunks, attend=replace(chunks.attend, classes=without_segments(chunks.attend.classes))), mask)


def test_plans_of_broken_bands_are_told_where_they_are_made() -> None:
    for plan in ("forward", "backward", "chunks", "rows"):
        found = compilation()
        found.lowered.__dict__["mask"] = broken(found.lowered.mask)
        with pytest.raises(InternalError, match=r"^expected of bands: bands that make one are one; got, in head 0: "):
            getattr(found, plan)


def test_nothing_is_checked_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEC_VERIFY", "0")
    found = compilation()
    found.lowered.__dict__["mask"] = broken(found.lowered.mask)
    assert verified(found.forward, found.lowered.mask) is found.forward
