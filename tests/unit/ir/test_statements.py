"""Each statement about bands and about tile programs can fail, and tells where; what the compiler makes holds them."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import pytest

import sparsec
from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.band import Band, Congruence, Draws, ListTest
from sparsec.ir.bands.bounds import LIMIT, Base, Bound, PerHead, constant, query
from sparsec.ir.bands.classes import BandClass, BlockMask
from sparsec.ir.bands.normalise import BAND_LIMIT
from sparsec.ir.bands.verify import NORMAL, WELL_FORMED, verify_mask, verify_transposed
from sparsec.ir.expr import nodes as x
from sparsec.ir.expr import simplify
from sparsec.ir.expr.nodes import FALSE, ONE, Int, Var
from sparsec.ir.expr.scalars import DOCUMENT, FORWARD, TRANSPOSED, Frame, Interval
from sparsec.ir.tiles import verify as verify_tiles
from sparsec.ir.tiles.listed import lane_rows
from sparsec.ir.tiles.program import Ranges, Segment, TileProgram
from sparsec.ir.tiles.project import project, project_transposed
from sparsec.ir.tiles.verify import verify_program
from sparsec.pipeline import Lowered
from sparsec.sema import model as m

TILE = 16
DENSE = (
    "causal",
    "full",
    "window(20)",
    "sink(21) | window(30)",
    "chunk(24)",
    "near2d(width = 20, rows = 2, columns = 3)",
    "rows(5..90) | columns(100..)",
    "global(19)",
)
STRIDED = ("window(3b) | stride(4b)", "dilated(5b, phase = 1)", "sink(40) | stride(5b, phase = 2)", "stride(50)")
DRAWN = ("random(2, seed = 3)", "window(2b) | random(2) | sink(1b)")
FRAMES = {"forward": FORWARD, "in a document": DOCUMENT, "transposed": TRANSPOSED}


def mask_of(attend: str, *, transposed: bool = False, heads: int = 1) -> BlockMask:
    text = f"pattern p {{ heads {heads}  block {TILE}  attend {attend} }}"
    lowered = sparsec.parse(text).pattern().lowered()
    return lowered.transposed if transposed else lowered.mask


def made(attend: str, frame: Frame) -> tuple[TileProgram, BandClass]:
    (of,) = mask_of(attend, transposed=frame is TRANSPOSED).classes
    if frame is TRANSPOSED:
        return project_transposed(of, TILE, TILE), of
    return project(of, TILE, TILE, in_document=frame is DOCUMENT), of


def verify(program: TileProgram, of: BandClass, frame: Frame) -> None:
    verify_program(program, of.bands, (*of.constants, *lane_rows(of)), frame)


def residue(period: int, phase: int, width: int = 1, unit: int = 1) -> Congruence:
    return Congruence(unit, period, phase, width, moving=False)


def mask(*bands: Band) -> BlockMask:
    return BlockMask(TILE, (BandClass((0,), bands, ()),))


DRAWS = Draws(2, 0, 0, TILE)
BROKEN_BANDS = {
    "units are positive": Band(congruences=(residue(4, 1, unit=0),)),
    "a residue's width lies between 0 and its period": Band(congruences=(residue(4, 1, width=4),)),
    "rows are bounded from the start or from the end": Band(first_row=(Bound(Base.ROW, 1, 3),)),
    "offsets stay within the limit": Band(upper=(Bound(Base.ROW, 1, LIMIT + 1),)),
    "shifts and residues of rows are of transposed bands alone": Band(row_residues=(residue(4, 1),)),
    "every bound of keys leaves some out": Band(lower=(constant(0),)),
    "no bound follows from another": Band(upper=(query(1), query(4))),
    "residues that make one are one": Band(congruences=(residue(4, 1), residue(6, 3))),
    "no list and no input is tested twice": Band(lists=(ListTest(DRAWS, negated=False), ListTest(DRAWS, negated=True))),
    "no band is proved empty": Band(lower=(constant(5),), upper=(constant(5),)),
}


@pytest.mark.parametrize("statement", [*WELL_FORMED, *NORMAL])
def test_a_band_that_breaks_a_statement_is_told(statement: str) -> None:
    with pytest.raises(InternalError, match=f"^expected of bands: {statement}; got, in head 0: "):
        verify_mask(mask(Band(upper=(constant(3),)), BROKEN_BANDS[statement]))


def columns(start: int, stop: int) -> Band:
    return Band(lower=(constant(start),), upper=(constant(stop),))


BROKEN_MASKS = {
    "bands that make one are one": mask(columns(2, 5), columns(5, 9)),
    f"a head has at most {BAND_LIMIT} bands": mask(*(columns(4 * n + 1, 4 * n + 3) for n in range(BAND_LIMIT + 1))),
    "every head is in one class": BlockMask(TILE, (BandClass((0, 2), (columns(2, 5),), ()),)),
    "classes differ in more than numbers": BlockMask(
        TILE, (BandClass((0,), (columns(2, 5),), ()), BandClass((1,), (columns(3, 5),), ()))
    ),
    "a head constant has a value for each head, within its range": BlockMask(
        TILE,
        (BandClass((0, 1), (Band(upper=(Bound(Base.ROW, 1, PerHead("c0", 1, 4)),)),), (("c0", (1, 5)),)),),
    ),
}


@pytest.mark.parametrize("statement", BROKEN_MASKS)
def test_a_mask_that_breaks_a_statement_is_told(statement: str) -> None:
    with pytest.raises(InternalError, match=f"^expected of bands: {statement}; got"):
        verify_mask(BROKEN_MASKS[statement])


def test_a_transposed_mask_of_other_pairs_is_told() -> None:
    found = mask_of("window(20) & causal", transposed=True)
    (of,) = found.classes
    (band,) = of.bands
    (upper,) = band.upper
    assert isinstance(upper.offset, int)
    wider = replace(band, upper=(replace(upper, offset=upper.offset + 1),))
    with pytest.raises(
        InternalError, match=r"holds \(j, i\) where the band holds \(i, j\).*head 0: i=113, j=93, nk=150"
    ):
        verify_transposed(mask_of("window(20) & causal"), replace(found, classes=(replace(of, bands=(wider,)),)))


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(
    "attend", [*DENSE, *STRIDED, *DRAWN, "causal & (window(3b) | stride(4b) | random(1))", "stride(3b) | stride(4b)"]
)
def test_programs_hold_the_statements(attend: str, frame: str) -> None:
    verify(*made(attend, FRAMES[frame]), FRAMES[frame])


def contiguous(program: TileProgram) -> Segment:
    return next(segment for segment in (*program.full, *program.masked) if segment.contiguous)


def with_segment(program: TileProgram, old: Segment, new: Segment) -> TileProgram:
    def exchanged(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        return tuple(new if segment is old else segment for segment in segments)

    return replace(program, full=exchanged(program.full), masked=exchanged(program.masked))


def alone(tile: x.Expr, count: x.Expr = ONE) -> Segment:
    return Segment(count, tile, x.TRUE, False, None, "planted")


def masked_too(program: TileProgram, segment: Segment) -> TileProgram:
    return replace(program, masked=(*program.masked, segment))


def heads_of(kind: m.InputKind) -> m.ResolvedPattern:
    """One head that sees its list and a window."""
    picks = m.InputDecl("picks", kind, 1, 1)
    term = m.Union((m.Window(20, 0, False), m.Input(0)))
    return m.ResolvedPattern(1, 1, (term,), TILE, (picks,), m.Documents.NONE, m.Score())


def planted(statement: str) -> tuple[TileProgram, BandClass, Frame]:
    """A program that breaks the statement, and no other one before it."""
    s2, s2_class = made("causal & (window(3b) | stride(4b))", FORWARD)
    causal, causal_class = made("causal", FORWARD)
    strided = next(segment for segment in s2.full if segment.span is not None)
    assert strided.span is not None
    match statement:
        case "a count is never negative":
            return masked_too(s2, alone(Int(0), Int(-1))), s2_class, FORWARD
        case "tiles of a contiguous segment follow each other":
            segment = contiguous(causal)
            doubled = replace(segment, tile=simplify.mul(segment.tile, Int(2)))
            return with_segment(causal, segment, doubled), causal_class, FORWARD
        case "the iterations of a span are those whose tile lies in it":
            longer = replace(strided.span, stop=simplify.add(strided.span.stop, Int(4)))
            return with_segment(s2, strided, replace(strided, span=longer)), s2_class, FORWARD
        case "a listed segment is of a forward program, its tiles in any order":
            program, of = made("random(2)", FORWARD)
            return with_segment(program, program.full[0], replace(program.full[0], contiguous=True)), of, FORWARD
        case "a full segment that is not listed and asks no input has no condition":
            tested = replace(strided, when=simplify.less(Var("n"), Int(10_000)))
            return with_segment(s2, strided, tested), s2_class, FORWARD
        case "no pair of a gather comes twice":
            (of,) = Lowered(heads_of(m.InputKind.ROWS)).mask.classes
            program = project(of, TILE, TILE)
            (gather,) = program.gathers
            return replace(program, gathers=(replace(gather, live=x.TRUE),)), of, FORWARD
        case "the reach of a gather has its pairs":
            (of,) = Lowered(heads_of(m.InputKind.COLUMNS)).mask.classes
            program = project(of, TILE, TILE, gathers_columns=True)
            (gather,) = program.gathers
            assert gather.reach is not None
            short = replace(gather.reach, stop=simplify.sub(gather.reach.stop, Int(2 * TILE)))
            return replace(program, gathers=(replace(gather, reach=short),)), of, FORWARD
        case "full ranges are in order and disjoint":
            (full,) = causal.ranges.full
            return replace(causal, ranges=Ranges(causal.ranges.visited, (full, full))), causal_class, FORWARD
        case "contiguous segments without a test run through the ranges":
            more = Interval(Int(0), Int(3), "")
            return replace(causal, ranges=Ranges((more,), causal.ranges.full)), causal_class, FORWARD
        case "each visited tile comes once":
            return masked_too(s2, replace(strided, span=None)), s2_class, FORWARD
        case "a visited tile has a column that exists":
            return masked_too(s2, alone(simplify.add(simplify.floor_div(Var("nk"), Int(TILE)), ONE))), s2_class, FORWARD
        case "every column of a full tile exists":
            program, of = made("full", FORWARD)
            return replace(program, full=program.full + program.masked, masked=()), of, FORWARD
        case "a full tile is live for every row":
            program, of = made("columns(3..)", FORWARD)
            return replace(program, full=program.full + program.masked, masked=()), of, FORWARD
        case "every live pair lies in a visited tile":
            return replace(s2, full=tuple(segment for segment in s2.full if segment is not strided)), s2_class, FORWARD
        case "the predicate holds for the live pairs alone":
            return replace(causal, live=FALSE), causal_class, FORWARD
    raise AssertionError(f"no fault is planted for: {statement}")


STATEMENTS = re.findall(r'_broken\(\s*"([^"]+)"', inspect.getsource(verify_tiles))


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_program_that_breaks_a_statement_is_told(statement: str) -> None:
    with pytest.raises(InternalError, match=f"^expected of tile programs: {statement}; got, for rows i from "):
        verify(*planted(statement))


def test_every_statement_has_its_fault() -> None:
    assert len(STATEMENTS) == len(set(STATEMENTS)) == 15


def test_a_transposed_program_that_misses_a_query_is_told() -> None:
    program, of = made("window(20) & causal", TRANSPOSED)
    fewer = replace(program, ranges=Ranges(), full=(), masked=())
    with pytest.raises(InternalError, match=r"every live pair lies in a visited tile; got, for rows j from .*j=0, i=0"):
        verify(fewer, of, TRANSPOSED)
